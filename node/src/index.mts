// The one implementation is CommonJS, so that a process never holds two of it.
export * from './index.js';
