import { Ingestion } from 'dodo-ingestion';
import { meter as express } from 'dodo-ingestion/express';
import { meter as fastify } from 'dodo-ingestion/fastify';
import { meter as hono } from 'dodo-ingestion/hono';
import { meter as http } from 'dodo-ingestion/http';
import { meter as proxy } from 'dodo-ingestion/http-proxy';
import { meter as koa } from 'dodo-ingestion/koa';
import { meter as next } from 'dodo-ingestion/next';

const ingestion = new Ingestion({ eventName: 'api_call' });
export const all = [
  express(ingestion),
  fastify(ingestion),
  hono(ingestion),
  http(ingestion),
  proxy(ingestion),
  koa(ingestion),
  next(ingestion),
];
