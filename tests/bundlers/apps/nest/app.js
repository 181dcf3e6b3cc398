import 'reflect-metadata';
import { Controller, Get, Module, UnauthorizedException } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Ingestion } from 'dodo-ingestion';
import { meter } from 'dodo-ingestion/nestjs';

class Orders {
  one() {
    return 'an order';
  }
  refused() {
    throw new UnauthorizedException();
  }
}
const routes = { one: ':order', refused: ':order/refused' };
for (const [name, path] of Object.entries(routes)) {
  const descriptor = Object.getOwnPropertyDescriptor(Orders.prototype, name);
  Get(path)(Orders.prototype, name, descriptor);
}
Controller('users/:user/orders')(Orders);
class App {}
Module({ controllers: [Orders] })(App);

const ingestion = new Ingestion();
const app = await NestFactory.create(App, { logger: false });
meter(app, ingestion, { customer: 'x-customer-id' });
app.setGlobalPrefix('v1');
await app.listen(0, '127.0.0.1');
const { port } = app.getHttpServer().address();
for (const path of ['7', '7/refused']) {
  const url = `http://127.0.0.1:${port}/v1/users/8/orders/${path}`;
  await (await fetch(url, { headers: { 'x-customer-id': 'cus_nest' } })).text();
}
await app.close();
await ingestion.close();
