// Two authorization servers of the certified OpenID provider `oidc-provider` behind one HTTPS port.
//
//   node oidc_provider.mjs '{"port": 0, "cert": FILE, "key": FILE, "clients": [{"client_id", ...}]}'
//
// prints {"port": N} once it listens. Then every line of its input is a command, answered with one line:
//
//   {"command": "rotate", "server": "/oauth2/default"}  publish a new key per algorithm and sign with it
//   {"command": "retire", "server": "/oauth2/default"}  publish the newest keys only
//
// It ends when its input does.

import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as https from 'node:https';
import * as readline from 'node:readline';

// Its notices would mix with our answers.
console.info = console.error;
const { Provider } = await import('oidc-provider');

const { port, cert, key, clients } = JSON.parse(process.argv[2]);

const SCOPES = ['read:data', 'write:data', 'admin:system'];

// Audience of the tokens for each resource indicator (RFC 8707), and their form.
const RESOURCES = {
  'api://boilstream': 'jwt',
  'api://elsewhere': 'jwt',
  'api://opaque': 'opaque',
};

const CIBA = 'urn:openid:params:grant-type:ciba';

const SERVERS = {
  // Laid out like a custom authorization server of Okta:
  // https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/
  '/oauth2/default': {
    routes: {
      authorization: '/v1/authorize',
      backchannel_authentication: '/v1/bc/authorize',
      jwks: '/v1/keys',
      token: '/v1/token',
    },
    // Okta names scopes and client differently from RFC 9068, which oidc-provider follows.
    claims: (token) => ({ scp: [...token.scopes], cid: token.clientId }),
  },
  // As oidc-provider comes: its addresses are found by discovery.
  '/realms/main': { routes: {}, claims: () => ({}) },
};

const KEY_PAIRS = {
  RS256: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
};

function newKeys() {
  return Object.entries(KEY_PAIRS).map(([alg, generate]) => ({
    ...generate().privateKey.export({ format: 'jwk' }),
    alg,
    use: 'sig',
    kid: crypto.randomUUID(),
  }));
}

class AuthorizationServer {
  constructor(origin, path, { routes, claims }) {
    this.path = path;
    this.issuer = `${origin}${path}`;
    this.routes = routes;
    this.claims = claims;
    this.publish(newKeys());
  }

  rotate() {
    this.publish([...newKeys(), ...this.keys]);
  }

  retire() {
    this.publish(this.keys.slice(0, Object.keys(KEY_PAIRS).length));
  }

  kids() {
    return this.keys.map(({ kid }) => kid);
  }

  // The keys of a Provider are fixed, so new ones need a new Provider. It signs with the first key that fits.
  publish(keys) {
    this.keys = keys;
    const provider = new Provider(this.issuer, this.configuration());
    provider.on('server_error', (_ctx, error) => console.error(error));
    this.callback = provider.callback();
    this.provider = provider;
  }

  configuration() {
    return {
      routes: this.routes,
      jwks: { keys: this.keys },
      scopes: ['openid', ...SCOPES],
      clients: clients.map((client) => ({
        grant_types: ['client_credentials', CIBA],
        redirect_uris: [],
        response_types: [],
        backchannel_token_delivery_mode: 'poll',
        id_token_signed_response_alg: client.access_token_alg,
        scope: ['openid', ...SCOPES].join(' '),
        ...client,
      })),
      extraClientMetadata: { properties: ['access_token_alg', 'groups'] },
      extraTokenClaims: (_ctx, token) => ({
        ...this.claims(token),
        ...(token.client.groups && { groups: token.client.groups }),
      }),
      findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
      ttl: {
        AccessToken: 3600,
        BackchannelAuthenticationRequest: 60,
        ClientCredentials: 3600,
        Grant: 3600,
        IdToken: 3600,
      },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => 'api://boilstream',
          useGrantedResource: () => true,
          getResourceServerInfo: (_ctx, resource, client) => ({
            audience: resource,
            scope: SCOPES.join(' '),
            accessTokenFormat: RESOURCES[resource],
            jwt: { sign: { alg: client.access_token_alg } },
          }),
        },
        // Tokens of a user without a browser (OpenID Connect CIBA Core 1.0); every user agrees at once.
        ciba: {
          enabled: true,
          processLoginHint: (_ctx, hint) => hint,
          validateBindingMessage: () => {},
          validateRequestContext: () => {},
          verifyUserCode: () => {},
          triggerAuthenticationDevice: (_ctx, ...parties) => this.agree(...parties),
        },
      },
    };
  }

  async agree(request, account, client) {
    const grant = new this.provider.Grant({ clientId: client.clientId, accountId: account.accountId });
    grant.addOIDCScope('openid');
    grant.addResourceScope('api://boilstream', SCOPES.join(' '));
    await grant.save();
    await this.provider.backchannelResult(request, grant);
  }
}

let servers = [];

function handle(request, response) {
  const server = servers.find(({ path }) => request.url.startsWith(`${path}/`));
  if (server === undefined) {
    response.writeHead(404).end();
    return;
  }
  request.originalUrl = request.url;
  request.url = request.url.slice(server.path.length);
  server.callback(request, response);
}

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const listener = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, handle);
listener.listen(port, '127.0.0.1', () => {
  const origin = `https://localhost:${listener.address().port}`;
  servers = Object.entries(SERVERS).map(([path, layout]) => new AuthorizationServer(origin, path, layout));
  answer({ port: listener.address().port });
});

const input = readline.createInterface({ input: process.stdin });
input.on('line', (line) => {
  const { command, server: path } = JSON.parse(line);
  const server = servers.find((candidate) => candidate.path === path);
  if (command === 'rotate') server.rotate();
  else if (command === 'retire') server.retire();
  else throw new Error(`no command ${command}`);
  answer({ kids: server.kids() });
});
input.on('close', () => process.exit());
