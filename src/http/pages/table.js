// What the page knows of profiles, and of the answers of the protocol. Nothing here touches the document.

// Every feature: the page shows the schema, and reads no rows.
const CAPABILITIES = 'responseformat=delta;readerfeatures=deletionvectors,columnmapping,timestampntz,typewidening,'
  + 'typewidening-preview,varianttype,varianttype-preview,v2checkpoint,vacuumprotocolcheck,catalogmanaged,icebergcompatv1';
const DEEPEST_TYPE = 12;

/** A failed request, with a message for people. `status` is 0 if there was no answer. */
class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Reads a profile file. Throws a Failure that says why it is none. */
function parseProfile(text) {
  let profile;
  try {
    profile = JSON.parse(text);
  } catch {
    throw new Failure(0, 'This file is not a profile: it is not JSON. A profile contains an endpoint and a token.');
  }
  if (profile === null || typeof profile !== 'object' || Array.isArray(profile)) {
    throw new Failure(0, 'This file is not a profile. A profile is a JSON object with an endpoint and a token.');
  }
  const version = profile.shareCredentialsVersion;
  if (version !== 1 && version !== 2) {
    throw new Failure(0, 'This file is not a profile that this page can read: its shareCredentialsVersion is neither 1 nor 2.');
  }
  let endpoint;
  try {
    endpoint = new URL(profile.endpoint);
  } catch {
    throw new Failure(0, 'This profile has no valid endpoint. Ask your data provider for a new one.');
  }
  if (endpoint.protocol !== 'https:' && endpoint.protocol !== 'http:') {
    throw new Failure(0, 'The endpoint of this profile is not an HTTP address. Ask your data provider for a new one.');
  }
  // Some clients take a token from here; it must not be shown.
  endpoint.username = endpoint.password = endpoint.search = endpoint.hash = '';
  if (!endpoint.pathname.endsWith('/')) endpoint.pathname += '/';
  const token = typeof profile.bearerToken === 'string' ? profile.bearerToken : null;
  // A header takes nothing else.
  if (token !== null && /[^\x21-\x7e]/.test(token)) {
    throw new Failure(0, 'The token of this profile contains characters that no token has. Ask your data provider for a new profile.');
  }
  if (version === 1 && token === null) {
    throw new Failure(0, 'This profile has no token. Ask your data provider for a new one.');
  }
  const expires = typeof profile.expirationTime === 'string' ? new Date(profile.expirationTime) : null;
  const type = typeof profile.type === 'string' ? profile.type : '';
  return { endpoint, token, type, expires: expires && !Number.isNaN(expires.getTime()) ? expires : null };
}

/** A duration in words, such as "3 days". */
function duration(milliseconds) {
  const minutes = Math.round(Math.abs(milliseconds) / 60000);
  const [number, unit] = minutes < 1 ? [0, 'minute'] : minutes < 60 ? [minutes, 'minute']
    : minutes < 48 * 60 ? [Math.round(minutes / 60), 'hour'] : minutes < 730 * 1440 ? [Math.round(minutes / 1440), 'day']
    : [Math.round(minutes / 1440 / 365), 'year'];
  return number === 0 ? 'less than a minute' : `${number} ${unit}${number === 1 ? '' : 's'}`;
}

function moment(date) {
  const parts = { year: 'numeric', month: 'long', day: 'numeric', hour: 'numeric', minute: '2-digit', timeZoneName: 'short' };
  return new Intl.DateTimeFormat('en', parts).format(date);
}

/** When a token expires, in words, and whether it has. */
function expiry(expires, now) {
  if (expires === null) return { text: 'The profile names no expiration time.', ended: false };
  const left = expires - now;
  const day = moment(expires);
  if (left <= 0) return { text: `Expired ${duration(left)} ago, on ${day}. Ask your data provider for a new profile.`, ended: true };
  return { text: `Expires in ${duration(left)}, on ${day}.`, ended: false };
}

/** A size in words, such as "1.2 MB". */
function size(bytes) {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let [number, unit] = [bytes, 0];
  for (; number >= 1000 && unit < units.length - 1; unit += 1) number /= 1000;
  return `${unit === 0 ? number : number.toPrecision(3).replace(/\.?0+$/, '')} ${bytes === 1 ? 'byte' : units[unit]}`;
}

/** A Delta type as text. */
function typeText(type, depth = 0) {
  if (typeof type === 'string') return type;
  if (type === null || typeof type !== 'object' || depth > DEEPEST_TYPE) return '…';
  const inner = (other) => typeText(other, depth + 1);
  if (type.type === 'array') return `array<${inner(type.elementType)}>`;
  if (type.type === 'map') return `map<${inner(type.keyType)}, ${inner(type.valueType)}>`;
  if (type.type === 'struct' && Array.isArray(type.fields)) {
    return `struct<${type.fields.map((field) => `${field.name}: ${inner(field.type)}`).join(', ')}>`;
  }
  return '…';
}

/** Lines of JSON, as they were read. */
function lines(text) {
  return text.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line));
}

/** What an answer to "Query Table Metadata" says, in delta format. */
function describe(text, version) {
  let protocol = {};
  let metadata = {};
  for (const line of lines(text)) {
    protocol = line.protocol?.deltaProtocol ?? protocol;
    metadata = line.metaData ?? metadata;
  }
  const table = metadata.deltaMetadata ?? metadata;
  const partitions = Array.isArray(table.partitionColumns) ? table.partitionColumns : [];
  const fields = JSON.parse(table.schemaString).fields;
  const number = (value) => (Number.isSafeInteger(value) && value >= 0 ? value : null);
  return {
    version,
    partitions,
    columns: fields.map((field) => ({
      name: String(field.name),
      type: typeText(field.type),
      nullable: field.nullable !== false,
      comment: typeof field.metadata?.comment === 'string' ? field.metadata.comment : '',
      partition: partitions.includes(field.name),
    })),
    description: typeof table.description === 'string' ? table.description : '',
    bytes: number(metadata.size),
    files: number(metadata.numFiles),
    features: protocol.minReaderVersion > 1
      ? (Array.isArray(protocol.readerFeatures) ? protocol.readerFeatures.map(String) : ['columnMapping']) : [],
    feed: table.configuration?.['delta.enableChangeDataFeed'] === 'true',
  };
}

/**
 * A server, for the token of one profile. Requests go to the endpoint of the profile, which is at the origin of this page:
 * another one is refused before a request, and by the policy of the page.
 */
class Server {
  #token;
  #endpoint;
  #ended = new AbortController();

  constructor(profile) {
    this.#token = profile.token;
    this.#endpoint = profile.endpoint;
    if (this.#endpoint.origin !== window.location.origin) throw new Failure(0, 'The profile is for another server.');
  }

  /** Ends every request, and forgets the token. */
  close() {
    this.#token = '';
    this.#ended.abort();
  }

  async #ask(names, { query = '', body, capabilities } = {}) {
    const url = this.#endpoint.href + names.map(encodeURIComponent).join('/') + query;
    const headers = { Accept: 'application/json' };
    // Open servers need no token, and their profiles may have an empty one.
    if (this.#token !== '') headers.Authorization = `Bearer ${this.#token}`;
    if (capabilities) headers['delta-sharing-capabilities'] = capabilities;
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const options = {
      method: body === undefined ? 'GET' : 'POST', headers, body: body && JSON.stringify(body), signal: this.#ended.signal,
      cache: 'no-store', credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer',
    };
    let response;
    let text;
    try {
      response = await fetch(url, options);
      text = await response.text();
    } catch (error) {
      if (this.#ended.signal.aborted) throw error;
      throw new Failure(0, 'The server could not be reached. Check your connection and try again.');
    }
    if (response.ok) return { response, text };
    let message;
    try {
      message = JSON.parse(text).message;
    } catch {
      // Something before the server answered.
    }
    throw new Failure(response.status, typeof message === 'string' ? message : `The server answered with status ${response.status}.`);
  }

  /** Every item of a listing. */
  async list(...names) {
    const items = [];
    let token = '';
    do {
      const { text } = await this.#ask(names, { query: token && `?pageToken=${encodeURIComponent(token)}` });
      const page = JSON.parse(text);
      items.push(...(page.items ?? []));
      token = page.nextPageToken ?? '';
    } while (token !== '');
    return items;
  }

  /** What the metadata of a table says. */
  async describe(path) {
    const { response, text } = await this.#ask([...path, 'metadata'], { capabilities: CAPABILITIES });
    return describe(text, Number(response.headers.get('delta-table-version')));
  }

  /**
   * Whether the history of a table is shared, and when its newest version was committed. Only the answer to a query of
   * changes says the latter, and only if the version changed rows. It is a page of one file, so it reads one commit.
   */
  async history(path, version) {
    const body = { startingVersion: version, endingVersion: version, maxFiles: 1 };
    try {
      const { text } = await this.#ask([...path, 'query'], { body, capabilities: CAPABILITIES });
      const file = lines(text).map((line) => line.file ?? line.add ?? line.remove).find((line) => line?.timestamp !== undefined);
      return { shared: true, committed: file ? new Date(file.timestamp) : null };
    } catch (error) {
      if (error instanceof Failure && error.status === 400 && /history sharing is not enabled/.test(error.message)) {
        return { shared: false, committed: null };
      }
      throw error;
    }
  }
}
