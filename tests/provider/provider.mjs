// An OpenID provider for tests: oidc-provider, with accounts and keys from a file that the test writes.
// `node provider.mjs CONFIG` prints where it listens, as one line of JSON, and serves until standard input closes.
import { createServer } from 'node:http'
import { readFileSync } from 'node:fs'
import { Provider } from 'oidc-provider'

const file = process.argv[2]
const config = () => JSON.parse(readFileSync(file, 'utf-8'))
const { port, jwks, clients, issuer: told } = config()

const server = createServer()
await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve))
const issuer = told || `http://127.0.0.1:${server.address().port}`

const provider = new Provider(issuer, {
  clients,
  jwks,
  claims: { openid: ['sub'], profile: ['name'], groups: ['groups'] },
  scopes: ['openid', 'profile', 'groups'],
  conformIdTokenClaims: false, // groups and the name are told in the ID token
  clientAuthMethods: ['client_secret_basic', 'none'],
  cookies: { keys: ['tests only'] },
  pkce: { required: () => true },
  ttl: { AccessToken: 600, AuthorizationCode: 60, DeviceCode: 300, Grant: 600, IdToken: 300, Interaction: 300, Session: 600 },
  features: {
    devInteractions: { enabled: false },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: (ctx, form) => { ctx.body = form },
      userCodeConfirmSource: (ctx, form) => { ctx.body = form },
      successSource: (ctx) => { ctx.body = 'the device is signed in' },
    },
  },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_ctx, id) => {
    const account = config().accounts[id]
    return account && { accountId: id, claims: () => ({ sub: id, ...account }) }
  },
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId })
    grant.addOIDCScope('openid profile groups')
    await grant.save()
    return grant
  },
})

// Whoever signs in says so in the address: `/interaction/UID?account=NAME`, or `?refuse=1`.
provider.use(async (ctx, next) => {
  const asked = ctx.path.startsWith('/interaction/') && ctx.method === 'GET'
  if (!asked) return next()
  const { account, refuse } = ctx.query
  const result = refuse
    ? { error: 'access_denied', error_description: 'the person said no' }
    : { login: { accountId: account } }
  if (!account && !refuse) ctx.body = 'who are you?'
  else await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: false })
  return undefined
})

server.on('request', provider.callback())
process.stdout.write(JSON.stringify({ issuer, port: server.address().port }) + '\n')
process.stdin.on('close', () => process.exit(0)).resume()
