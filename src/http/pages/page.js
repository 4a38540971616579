// The page itself. Whatever comes from the server or from a file gets into the document as text.

const LARGEST_PROFILE = 65536;
const MOST_COLUMNS = 500;
const FEW_SHARES = 8;
const FILTER_FROM = 15;

const byId = (id) => document.getElementById(id);

/** An element with attributes and children. Texts are text, whatever they contain. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, '');
    else if (value !== false && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function fact(name, value, wide = false) {
  return element('div', { class: wide ? 'wide' : null }, element('dt', {}, name), element('dd', {}, value));
}

function complain(message, advice = '', warn = false) {
  byId('message').append(element('div', { class: warn ? 'message warn' : 'message' },
    element('p', {}, message), advice ? element('p', {}, advice) : null));
}

function say(text) {
  byId('status').textContent = text;
}

/** What went wrong, in words. */
function reason(error) {
  return error instanceof Failure ? error.message : 'The answer of the server cannot be read.';
}

/** What a recipient can do about a failure. */
function advice(error) {
  if (error.status === 401) return 'Ask your data provider for a new profile.';
  if (error.status === 403) return 'Ask your data provider for access.';
  if (error.status === 404) return 'It may no longer be shared with you. Close the profile and open it again.';
  if (error.status === 429 || error.status >= 500) return 'Wait a moment and try again.';
  return '';
}

// The profile that is open, and what was read with it. Nothing of it is stored.
let opened = null;
let client = 'pandas';

async function open(file) {
  close();
  try {
    if (file.size > LARGEST_PROFILE) throw new Failure(0, 'This file is too large to be a profile.');
    const profile = parseProfile(await file.text());
    show(file.name, profile);
  } catch (error) {
    complain(error instanceof Failure ? error.message : 'This file cannot be read.');
    byId('file').value = '';
  }
}

function show(file, profile) {
  const { endpoint, expires, token, type } = profile;
  const until = expiry(expires, new Date());
  byId('open').hidden = true;
  byId('loaded').hidden = byId('profile').hidden = false;
  byId('loaded-name').textContent = file;
  byId('profile-facts').replaceChildren(
    fact('Server', endpoint.href),
    fact('Token', element('span', { class: until.ended ? 'ended' : null }, until.text)),
  );
  opened = { file, endpoint: endpoint.href, server: null, item: null };
  byId('profile-title').focus();
  if (token === null) {
    complain('This page cannot read with this profile.',
      `The profile signs in with ${type || 'credentials other than a token'}, which this page does not support. Clients that do can use the code below.`, true);
    showGeneral(true);
  } else if (endpoint.origin !== window.location.origin) {
    complain('This profile is for another server.',
      element('span', {}, 'Your token was not sent. If that server has a page like this one, it is at ',
        element('a', { href: endpoint.href, rel: 'noreferrer' }, endpoint.href), '.'), true);
    showGeneral(false);
  } else {
    opened.server = new Server(profile);
    showShares(opened);
  }
}

/** Forgets the profile and everything that was read with it. */
function close() {
  opened?.server?.close();
  opened = null;
  for (const id of ['message', 'profile-facts', 'shares', 'general', 'loaded-name', 'status']) byId(id).replaceChildren();
  for (const id of ['loaded', 'profile', 'browse', 'general', 'filter-line']) byId(id).hidden = true;
  byId('table').replaceChildren(element('p', { id: 'choose' }, 'Choose a table to see its columns and how to read it.'));
  byId('filter').value = '';
  byId('file').value = '';
  byId('open').hidden = false;
  document.title = 'Delta Sharing';
}

function showGeneral(oauth) {
  byId('general').hidden = false;
  byId('general').replaceChildren(element('h2', {}, 'Read a table'),
    element('p', { class: 'quiet' }, 'Replace SHARE, SCHEMA, and TABLE with the names of a table.'),
    snippets(place(opened.file, opened.endpoint, null, null), CLIENTS.filter((one) => one.oauth || !oauth)));
}

async function showShares(mine) {
  say('Loading the list of shares.');
  byId('shares').replaceChildren(element('p', { class: 'quiet' }, 'Loading…'));
  byId('browse').hidden = false;
  try {
    const shares = await mine.server.list('shares');
    if (mine !== opened) return;
    const nodes = shares.map((share) => shareNode(mine, String(share.name)));
    byId('shares').replaceChildren(...nodes.map((node) => node.details));
    if (shares.length === 0) byId('shares').append(element('p', { class: 'quiet' }, 'No share is granted to you yet.'));
    say(`${shares.length === 1 ? 'One share' : `${shares.length} shares`} found.`);
    // Further ones are listed when they are opened.
    if (shares.length <= FEW_SHARES) for (const node of nodes) node.details.open = true;
  } catch (error) {
    if (mine !== opened) return;
    byId('browse').hidden = true;
    say('');
    complain(reason(error), advice(error));
  }
}

function shareNode(mine, share) {
  const count = element('span', { class: 'quiet' });
  const content = element('div', {});
  let listed = false;
  const list = async () => {
    if (!details.open || listed) return;
    listed = true;
    content.replaceChildren(element('p', { class: 'quiet' }, 'Loading…'));
    try {
      const tables = await mine.server.list('shares', share, 'all-tables');
      if (mine !== opened) return;
      count.textContent = ` ${tables.length === 1 ? '1 table' : `${tables.length} tables`}`;
      content.replaceChildren(...[...bySchema(tables)].map(([schema, items]) => schemaNode(mine, share, schema, items)));
      if (tables.length === 0) content.append(element('p', { class: 'quiet' }, 'This share has no tables yet.'));
      filter();
    } catch (error) {
      if (mine !== opened) return;
      listed = false;
      content.replaceChildren(element('p', { class: 'message' }, `${reason(error)} ${advice(error)}`));
    }
  };
  const details = element('details', { class: 'share', ontoggle: list },
    element('summary', {}, share, count), content);
  return { details };
}

function bySchema(tables) {
  const schemas = new Map();
  for (const table of tables) {
    const schema = String(table.schema);
    if (!schemas.has(schema)) schemas.set(schema, []);
    schemas.get(schema).push(table);
  }
  return schemas;
}

function schemaNode(mine, share, schema, tables) {
  const buttons = tables.map((table) => {
    const item = { share, schema, table: String(table.name) };
    return element('li', {}, element('button', { type: 'button', onclick: (event) => choose(mine, item, event.currentTarget) }, item.table));
  });
  return element('div', { class: 'schema' }, element('h4', {}, schema), element('ul', {}, ...buttons));
}

/** Hides the tables whose names do not contain what is looked for. */
function filter() {
  const items = [...byId('shares').querySelectorAll('li')];
  if (items.length >= FILTER_FROM) byId('filter-line').hidden = false;
  const wanted = byId('filter').value.trim().toLowerCase();
  for (const item of items) item.hidden = !item.textContent.toLowerCase().includes(wanted);
  for (const schema of byId('shares').querySelectorAll('.schema')) {
    schema.hidden = wanted !== '' && !schema.querySelector('li:not([hidden])');
  }
}

async function choose(mine, item, button) {
  mine.item = item;
  byId('shares').querySelector('[aria-current]')?.removeAttribute('aria-current');
  button.setAttribute('aria-current', 'true');
  document.title = `${item.table} – Delta Sharing`;
  const heading = element('h2', { id: 'table-title', tabindex: '-1' }, item.table);
  const loading = element('p', { class: 'quiet' }, 'Loading…');
  byId('table').replaceChildren(element('p', { class: 'path' }, `${item.share} / ${item.schema}`), heading, loading);
  heading.focus();
  const path = ['shares', item.share, 'schemas', item.schema, 'tables', item.table];
  const isShown = () => mine === opened && mine.item === item;
  try {
    const about = await mine.server.describe(path);
    if (!isShown()) return;
    const facts = element('dl', { class: 'facts' }, ...factsOf(about));
    loading.replaceWith(facts, element('h3', {}, `Columns (${about.columns.length})`), columns(about), element('h3', {}, 'Read this table'),
      snippets(place(mine.file, mine.endpoint, item, about), CLIENTS));
    say(`Table ${item.table}: ${about.columns.length} columns.`);
    addHistory(mine, path, about, facts, isShown);
  } catch (error) {
    if (!isShown()) return;
    loading.replaceWith(element('div', { class: 'message', role: 'alert' }, element('p', {}, reason(error)),
      advice(error) ? element('p', {}, advice(error)) : null));
  }
}

function factsOf(about) {
  return [
    about.description ? fact('Description', about.description, true) : null,
    fact('Version', String(about.version)),
    about.bytes === null ? null : fact('Size', size(about.bytes) + (about.files === null ? '' : ` in ${about.files === 1 ? '1 file' : `${about.files} files`}`)),
    fact('Partitioned by', about.partitions.length ? about.partitions.join(', ') : 'nothing'),
    about.features.length ? fact('Clients need', about.features.join(', ')) : null,
  ];
}

/** Adds what another request tells. If it fails, the page says nothing of it. */
async function addHistory(mine, path, about, facts, isShown) {
  try {
    const { shared, committed } = await mine.server.history(path, about.version);
    if (!isShown()) return;
    if (committed !== null) facts.append(fact('Last commit', element('time', { datetime: committed.toISOString() }, moment(committed))));
    facts.append(fact('Older versions', shared ? 'shared' : 'not shared'), fact('Change data feed', shared && about.feed ? 'shared' : 'not shared'));
  } catch {
    // Not known.
  }
}

function columns(about) {
  const body = element('tbody', {});
  const hasComments = about.columns.some((column) => column.comment !== '');
  const row = (column) => element('tr', {},
    element('th', { scope: 'row' }, column.name, column.partition ? element('span', { class: 'badge' }, 'partition') : null),
    element('td', { class: 'type' }, column.type),
    element('td', {}, column.nullable ? 'yes' : 'no'),
    hasComments ? element('td', {}, column.comment) : null);
  body.append(...about.columns.slice(0, MOST_COLUMNS).map(row));
  const head = ['Name', 'Type', 'Can be null', ...(hasComments ? ['Comment'] : [])];
  const scroll = element('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Columns' },
    element('table', {}, element('thead', {}, element('tr', {}, ...head.map((name) => element('th', { scope: 'col' }, name)))), body));
  if (about.columns.length <= MOST_COLUMNS) return scroll;
  const more = element('button', {
    type: 'button',
    onclick: () => {
      body.append(...about.columns.slice(MOST_COLUMNS).map(row));
      more.remove();
    },
  }, `Show all ${about.columns.length} columns`);
  return element('div', {}, scroll, more);
}

/** The code for each client, of which one is shown. */
function snippets(where, clients) {
  const shown = element('div', {});
  const current = clients.find((one) => one.id === client) ?? clients[0];
  const choices = clients.map((one) => element('label', { class: 'choice' },
    element('input', {
      type: 'radio', name: 'client', id: `client-${one.id}`, value: one.id, checked: one === current,
      onchange: () => {
        client = one.id;
        showClient(one);
      },
    }),
    element('span', {}, one.name)));
  const showClient = (one) => {
    const hints = [`Run the code in the directory that contains ${where.file}.`, ...one.hints(where)];
    shown.replaceChildren(
      ...(one.steps ? [element('ol', { class: 'steps' }, ...one.steps(where).map((step) => element('li', {}, step)))] : []),
      ...one.code(where).map(snippet),
      element('ul', { class: 'hints' }, ...hints.slice(one.steps ? 1 : 0).map((hint) => element('li', {}, hint))));
  };
  showClient(current);
  return element('div', {}, element('fieldset', {}, element('legend', { class: 'visually-hidden' }, 'Client'), ...choices), shown);
}

function snippet({ title, text }) {
  const code = element('code', {}, text);
  const copy = element('button', { type: 'button', 'aria-label': `Copy: ${title}`, onclick: () => copied(text, code, copy) }, 'Copy');
  return element('div', { class: 'snippet' }, element('header', {}, element('span', {}, title), copy),
    element('pre', { tabindex: '0', role: 'region', 'aria-label': title }, code));
}

async function copied(text, code, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
    say('Copied to the clipboard.');
  } catch {
    // Browsers have no clipboard for pages without TLS.
    window.getSelection().selectAllChildren(code);
    button.textContent = 'Selected';
    say('The code is selected. Copy it with the keyboard.');
  }
  setTimeout(() => { button.textContent = 'Copy'; }, 2000);
}

byId('file').addEventListener('change', (event) => {
  const [file] = event.target.files;
  if (file) open(file);
});
byId('close').addEventListener('click', () => {
  close();
  byId('file').focus();
});
byId('filter').addEventListener('input', filter);
for (const name of ['dragenter', 'dragover']) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId('drop').classList.add('over');
  });
}
document.addEventListener('dragleave', (event) => {
  if (event.relatedTarget === null) byId('drop').classList.remove('over');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  byId('drop').classList.remove('over');
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});
