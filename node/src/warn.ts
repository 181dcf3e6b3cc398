/**
 * Says to an operator what nobody else listens for.
 *
 * @internal
 */
export function warn(kind: string, message: string): void {
  process.emitWarning(message, { type: 'DodoIngestionWarning', code: kind });
}
