import { meter, setCustomer } from 'dodo-ingestion/next';
import { ingestion } from './ingestion.mjs';

/** As Next.js declares its own. */
interface NextRequest extends Request {
  cookies: { get(name: string): string };
}

const withMeter = meter<NextRequest>(ingestion, {
  customer: (request) => request.cookies.get('id'),
});
export const GET: (
  request: NextRequest,
  context: { params: Promise<{ id: string }> },
) => Promise<Response> = withMeter(
  async (request: NextRequest, { params }: { params: Promise<{ id: string }> }) => {
    setCustomer(request, (await params).id);
    return new Response();
  },
  { endpoint: '/api/users/[id]' },
);
export const POST = withMeter(() => Response.json({}), { endpoint: '/api/users' });

// @ts-expect-error: the route's template is what nobody else knows
withMeter(() => new Response(), {});
