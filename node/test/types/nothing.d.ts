// In the place of types that are not installed.
export {};
