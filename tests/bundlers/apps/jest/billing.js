const { trackAPICall } = require('dodo-ingestion');

exports.serve = function serve(ingestion, customerId) {
  return trackAPICall(ingestion, { customerId, metadata: { endpoint: '/', at: new Date(0) } });
};
