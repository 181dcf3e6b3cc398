/**
 * Says to an operator what nobody else listens for.
 *
 * @internal
 */
export function warn(kind: string, message: string): void {
  process.emitWarning(message, { type: 'DodoIngestionWarning', code: kind });
}

/**
 * What is said of a failure, whatever was thrown.
 *
 * @internal
 */
export function reason(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : typeof thrown;
}
