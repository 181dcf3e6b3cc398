export * from './http-proxy.js';
