// The Node client, told on standard input what to read: see tests/python/clients/programs.py.
'use strict';

const readline = require('readline');
const { SharingClient, DataSharingRestClient, DeltaSharingProfile, DeltaSharingReader, Table } = require('delta-sharing');

const profile = process.argv[2];
const rest = new DataSharingRestClient(DeltaSharingProfile.readFromFile(profile));

// Standard output is for answers: the client and its libraries write what they like with console.log.
console.log = console.info = console.warn = console.error;

function value(cell) {
    if (cell === undefined) return null;
    if (typeof cell === 'bigint') return Number(cell);
    if (Buffer.isBuffer(cell)) return cell.toString('hex');
    if (cell instanceof Date) return cell.toISOString().slice(0, 10);
    return cell;
}

function table(name) {
    const [share, schema, tableName] = name.split('.');
    return new Table(tableName, share, schema);
}

async function rows(asked) {
    const reader = new DeltaSharingReader(table(asked.table), rest, null, asked.limit ?? null);
    if (asked.frame) {
        const frame = await reader.createDataFrame();
        return { columns: frame.columns, shape: frame.shape };
    }
    const found = await reader.createDataArray();
    if (found === undefined) return { nothing: 'undefined' };
    return { rows: found.map(row => Object.fromEntries(Object.entries(row).map(([name, cell]) => [name, value(cell)]))) };
}

async function answer(asked) {
    if (asked.do === 'tables') {
        const tables = await new SharingClient(profile).listAllTablesAsync();
        return { tables: tables.map(one => `${one.share}.${one.schema}.${one.tableName}`) };
    }
    return rows(asked);
}

(async () => {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        let told;
        try {
            told = await answer(JSON.parse(line));
        } catch (error) {
            told = { error: String(error.message ?? error), answer: error.response && error.response.data };
        }
        process.stdout.write(JSON.stringify(told) + '\n');
    }
})();
