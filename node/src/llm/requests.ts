/** What the requests of language models tell, and how they are asked to tell more. */

import { type Any, isObject, type Method } from './streams';

/** Whether it is an agent of the AI SDK. */
export function isAgent(holder: Any): boolean {
  const version = asked(holder, 'version');
  return typeof version === 'string' && version.startsWith('agent-');
}

/** Whether it is a language model of the AI SDK, from version 6 on. */
export function isModel(holder: Any): boolean {
  return (
    typeof asked(holder, 'doGenerate') === 'function' &&
    asked(holder, 'specificationVersion') !== 'v2'
  );
}

/** The arguments that name the model. An agent of the AI SDK and a model of LangChain's know it themselves. */
export function naming(holder: Any, args: unknown[]): unknown[] {
  if (isAgent(holder)) {
    return [asked(holder, 'settings')];
  }
  return asked(holder, 'lc_runnable') === true ? [asked(holder, 'bound') ?? holder] : args;
}

/** A property of any client, of which some refuse to be asked. */
function asked(holder: Any, name: string): unknown {
  try {
    return holder[name];
  } catch {
    return undefined;
  }
}

/** A request whose listener of these names is behind one that hears the same. */
export function heard(
  request: object,
  [older, ...newer]: readonly [string, ...string[]],
  hear: (event: unknown) => void,
): object {
  const telling: Any = { ...request };
  for (const name of [older, ...newer.filter((name) => telling[name])]) {
    const listener = telling[name] as Method | undefined;
    telling[name] = (event: unknown, ...rest: unknown[]) => {
      hear(event);
      return listener?.(event, ...rest);
    };
  }
  return telling;
}

/**
 * The model that a request names. Its own way has Bedrock, whose requests are objects of a class; the AI SDK's
 * models are objects.
 */
export function modelOf([request]: unknown[]): unknown {
  if (!isObject(request)) {
    return undefined;
  }
  const { model, modelId, input } = request as Any;
  const named = isObject(model) ? (model as Any).modelId : model;
  return named ?? modelId ?? (isObject(input) ? (input as Any).modelId : undefined);
}

/** Whose model it is, of which the AI SDK's models tell: `anthropic.messages`. */
export function providerOf([request]: unknown[]): unknown {
  const model = isObject(request) ? (request as Any).model : undefined;
  const provider = isObject(model) ? (model as Any).provider : undefined;
  return typeof provider === 'string' ? provider.split('.')[0] : undefined;
}

/** Whether a stream is asked for of an answer that there is already. */
export function fetches([request]: unknown[]): boolean {
  return isObject(request) && typeof (request as Any).response_id === 'string';
}
