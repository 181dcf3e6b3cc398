import type { ExecutionContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { meter, setCustomer } from 'dodo-ingestion/nestjs';
import { ingestion } from './ingestion.mjs';

const app = await NestFactory.create(class {});
export const { billed } = meter(app, ingestion, { customer: 'x-customer-id' }).stats();
const fast = await NestFactory.create<NestFastifyApplication>(class {}, new FastifyAdapter());
meter(fast, ingestion, { customer: (request) => request.user?.customerId });

export const guard = (context: ExecutionContext) =>
  setCustomer(context.switchToHttp().getRequest(), 'cus_1');
