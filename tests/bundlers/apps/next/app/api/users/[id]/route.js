import { withMeter } from '../../../../lib/billing.js';

const EDITION = 1;

export const GET = withMeter(
  async (_request, { params }) => {
    const { id } = await params;
    return Response.json({ id, EDITION });
  },
  { endpoint: '/api/users/[id]' },
);
