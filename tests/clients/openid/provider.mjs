// An OpenID provider (the package oidc-provider) as the company of a recipient runs it: its clients get JWTs for one audience
// with their client credentials. Each line on standard input starts it again, at the same address, with other keys or with a
// clock that is wrong by some seconds.

import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

// Standard output is for answers; the provider writes notices to it.
console.info = console.error;

const time = Date.now;
let server;
let port = 0;

async function start({ keys, algorithm, skew }) {
  if (server) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  Date.now = () => time() + skew * 1000;
  let provider;
  server = createServer((request, response) => provider.callback()(request, response));
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  port = server.address().port;
  provider = new Provider(`http://127.0.0.1:${port}`, {
    jwks: { keys },
    clients: [{
      client_id: 'acme-reader',
      client_secret: 'a-secret-of-the-recipient',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
      id_token_signed_response_alg: algorithm,
      token_endpoint_auth_method: 'client_secret_basic',
    }],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'https://sharing.example.com',
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: 'read',
          audience: 'delta-sharing',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 3600,
          jwt: { sign: { alg: algorithm } },
        }),
      },
    },
  });
  console.log(JSON.stringify({ issuer: provider.issuer, token: `${provider.issuer}/token` }));
}

for await (const line of createInterface({ input: process.stdin })) await start(JSON.parse(line));
process.exit(0);
