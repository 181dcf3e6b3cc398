/** The absolute path of the program for this machine. Throws where there is none. */
export function binaryPath(): string;
