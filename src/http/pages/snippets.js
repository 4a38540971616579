// What to paste into each client. Names and files may contain anything, so each language has its own quotes.

// JSON strings mean the same in Python, JavaScript, and R.
const quoted = JSON.stringify;
const shellQuoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const sqlQuoted = (text) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
const sqlName = (text) => `\`${text.replaceAll('`', '``')}\``;
const urlPart = (text) => encodeURIComponent(text).replaceAll("'", '%27');

const SPARK = 'io.delta:delta-sharing-spark_2.13:4.0.1';
const SPARK_HINT = 'Spark 4.0. For Spark 3.5, use io.delta:delta-sharing-spark_2.12:3.3.2.';

/** The clients, in the order in which they are shown. `code` gets what `place` returns. */
const CLIENTS = [
  {
    id: 'pandas', name: 'pandas', oauth: true,
    code: ({ address }) => [
      { title: 'Terminal', text: 'pip install delta-sharing' },
      { title: 'Python', text: `import delta_sharing\n\ntable = ${quoted(address)}\nprint(delta_sharing.load_as_pandas(table, limit=10))` },
    ],
    hints: () => ['Leave out limit to read every row.'],
  },
  {
    id: 'spark', name: 'Spark', oauth: true,
    code: ({ address, features }) => [
      { title: 'Terminal', text: `pyspark --packages ${SPARK}` },
      {
        title: 'PySpark',
        text: `df = (\n    spark.read.format("deltaSharing")\n${features.length ? '    .option("responseFormat", "delta")\n' : ''}    .load(${quoted(address)})\n)\ndf.show(10)`,
      },
    ],
    hints: () => [SPARK_HINT],
  },
  {
    id: 'sql', name: 'SQL', oauth: true,
    code: ({ address, table, features }) => [
      { title: 'Terminal', text: `spark-sql --packages ${SPARK}` },
      {
        title: 'Spark SQL',
        text: `CREATE TEMPORARY VIEW ${sqlName(table)} USING deltaSharing\nOPTIONS (path ${sqlQuoted(address)}${features.length ? ", responseFormat 'delta'" : ''});\n\nSELECT * FROM ${sqlName(table)} LIMIT 10;`,
      },
    ],
    hints: () => [SPARK_HINT],
  },
  {
    id: 'powerbi', name: 'Power BI',
    steps: ({ share, schema, table }) => [
      'In Power BI Desktop, choose Get data, and then Delta Sharing.',
      'Enter the server URL below.',
      'Enter the token: the value of bearerToken in your profile file.',
      `Choose ${share}, ${schema}, and ${table}, and load the table.`,
    ],
    code: ({ endpoint }) => [{ title: 'Server URL', text: endpoint }],
    hints: ({ features }) => [
      'By default, Power BI reads at most 1,000,000 rows.',
      ...(features.length ? [`Power BI cannot read this table, because it needs ${features.join(', ')}.`] : []),
    ],
  },
  {
    id: 'r', name: 'R', oauth: true,
    code: ({ file, share, schema, table }) => [
      { title: 'R, once', text: 'install.packages("delta.sharing")' },
      {
        title: 'R',
        text: `library(delta.sharing)\n\nclient <- sharing_client(${quoted(file)})\nclient$table(${quoted(`${share}.${schema}.${table}`)})$snapshot(limit = 10)$to_tibble()`,
      },
    ],
    hints: () => ['The package needs R 4.3 or later, and Rust 1.88 or later to build it.'],
  },
  {
    id: 'node', name: 'Node',
    code: ({ file, share, schema, table }) => [
      {
        title: 'package.json',
        text: `{\n  "dependencies": { "delta-sharing": "0.0.2" },\n  "overrides": { "xlsx": "0.18.5", "@tensorflow/tfjs-node": "npm:@tensorflow/tfjs@3.21.0" }\n}`,
      },
      { title: 'Terminal', text: 'npm install --ignore-scripts' },
      {
        title: 'JavaScript',
        text: `const path = require('path');\nconst { DataSharingRestClient, DeltaSharingProfile, DeltaSharingReader, Table } = require('delta-sharing');\n\nconst profile = DeltaSharingProfile.readFromFile(path.resolve(${quoted(file)}));\nconst table = new Table(${quoted(table)}, ${quoted(share)}, ${quoted(schema)});\nnew DeltaSharingReader(table, new DataSharingRestClient(profile)).createDataArray().then(console.log);`,
      },
    ],
    hints: ({ features, decimals, partitions }) => [
      ...(features.length ? [`This client cannot read this table, because it needs ${features.join(', ')}.`] : []),
      ...(decimals ? ['This client cannot read the decimal columns of this table.'] : []),
      ...(partitions.length ? ['This client leaves out the partition columns.'] : []),
    ],
  },
  {
    id: 'curl', name: 'curl',
    code: ({ endpoint, file, share, schema, table, features }) => {
      // The token gets into the header without being on a command line, which other users of the machine can see.
      const header = `sed -n 's/.*"bearerToken" *: *"\\([^"]*\\)".*/Authorization: Bearer \\1/p' ${shellQuoted(file)}`;
      const url = `${endpoint}shares/${urlPart(share)}/schemas/${urlPart(schema)}/tables/${urlPart(table)}`;
      const declare = features.length
        ? ` \\\n  --header 'delta-sharing-capabilities: responseformat=delta;readerfeatures=${features.map((name) => name.toLowerCase()).filter((name) => /^[a-z0-9-]+$/.test(name)).join(',')}'` : '';
      return [
        { title: 'Terminal: the schema', text: `${header} |\n  curl --header @-${declare} ${shellQuoted(`${url}/metadata`)}` },
        {
          title: 'Terminal: the files, with URLs that work for a short time',
          text: `${header} |\n  curl --header @- --header 'Content-Type: application/json' --data '{}'${declare} \\\n  ${shellQuoted(`${url}/query`)}`,
        },
      ];
    },
    hints: () => ['The token is read from the profile file. It does not appear in the command or in the list of processes.'],
  },
];

/** What snippets say of a table. Without one, they have names to replace. */
function place(file, endpoint, item, about) {
  const name = file.startsWith('-') ? `./${file}` : file;
  const { share, schema, table } = item ?? { share: 'SHARE', schema: 'SCHEMA', table: 'TABLE' };
  return {
    file: name, endpoint, share, schema, table,
    address: `${name}#${share}.${schema}.${table}`,
    features: about?.features ?? [],
    partitions: about?.partitions ?? [],
    decimals: (about?.columns ?? []).some((column) => column.type.includes('decimal(')),
  };
}
