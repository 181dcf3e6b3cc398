// A NestJS app whose calls are billed. PORT=3000 node nestjs.mjs
// (In plain JavaScript, so without decorators; in TypeScript they are as always.)

import 'reflect-metadata';
import { Controller, Get, Module, Param } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/nestjs';

class Users {
  one(id) {
    return { id };
  }
}
Controller('users')(Users);
Get(':id')(Users.prototype, 'one', Object.getOwnPropertyDescriptor(Users.prototype, 'one'));
Param('id')(Users.prototype, 'one', 0);

class AppModule {}
Module({ controllers: [Users] })(AppModule);

const ingestion = new Ingestion({ eventName: 'api_call' }); // the key: DODO_PAYMENTS_API_KEY
const app = await NestFactory.create(AppModule, { logger: false });
// Stands for what looks a key up.
const customers = { 'key-1': 'cus_1', 'key-2': 'cus_2' };
meter(app, ingestion, { customer: (request) => customers[request.headers['x-api-key']] });
await app.listen(process.env.PORT ?? 3000);
console.log(await app.getUrl());
