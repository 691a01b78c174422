// Writes the part of schemas/README.md that is made from the zod schemas of the `throughline` vocabulary, with each
// type's example taken from the example day.
//
//   node test/schemas/readme.ts        after a change of schemas/vocabularies/throughline.ts
import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { PARTS, TYPES } from '../../schemas/vocabularies/throughline.ts';

const README = new URL('../../schemas/README.md', import.meta.url);
const DAY = new URL('../fixtures/example-day.ndjson', import.meta.url);
export const MARK = '<!-- from here on written by test/schemas/readme.ts -->';
const WIDTH = 118;

/** JSON that breaks a line only where it would be too long. */
function pretty(value: unknown, indent = ''): string {
  const flat = JSON.stringify(value).replaceAll(/("(?:[^"\\]|\\.)*")|([:,])/g, (_, string: string | undefined, mark: string) => string ?? `${mark} `);
  if (indent.length + flat.length <= WIDTH || typeof value !== 'object' || value === null) return flat;
  const deeper = `${indent}  `;
  const rows = Array.isArray(value)
    ? value.map((item) => pretty(item, deeper))
    : Object.entries(value).map(([key, member]) => `${JSON.stringify(key)}: ${pretty(member, deeper)}`);
  const [open, close] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  return `${open}\n${rows.map((row) => deeper + row).join(',\n')}\n${indent}${close}`;
}

const fenced = (value: unknown): string => `\`\`\`json\n${pretty(value)}\n\`\`\``;
const anchor = (type: string): string => type.toLowerCase().replaceAll('.', '');

/** Every schema by its name, with the shared parts as references into one `$defs`. */
export function jsonSchemas(): Readonly<Record<string, unknown>> {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(PARTS)) registry.add(schema, { id });
  for (const [id, { schema }] of Object.entries(TYPES)) registry.add(schema, { id });
  const made = z.toJSONSchema(registry, { io: 'input', uri: (id) => `#/$defs/${id}` });
  return Object.fromEntries(Object.entries(made.schemas).map(([name, { $schema: _dialect, $id: _id, ...schema }]) => [name, schema]));
}

function examples(): ReadonlyMap<string, unknown> {
  const found = new Map<string, unknown>();
  for (const line of readFileSync(DAY, 'utf8').trim().split('\n')) {
    const event = JSON.parse(line) as { type: string };
    if (!found.has(event.type)) found.set(event.type, event);
  }
  return found;
}

/** The generated part, its mark included. */
export function generated(): string {
  const schemas = jsonSchemas();
  const example = examples();
  const chapters = Object.entries(TYPES).map(([type, { about }]) => [
    `### ${type}`, '', about, '', fenced(example.get(type)), '', 'Its `data`:', '', fenced(schemas[type]), '',
  ].join('\n'));
  const parts = Object.fromEntries(Object.keys(PARTS).map((name) => [name, schemas[name]]));
  return [
    MARK, '', ...Object.entries(TYPES).map(([type, { about }]) => `- [\`${type}\`](#${anchor(type)}): ${about}`), '',
    '### The shared parts', '', fenced({ $schema: 'https://json-schema.org/draft/2020-12/schema', $defs: parts }), '', chapters.join('\n'),
  ].join('\n');
}

export function readme(): string {
  return readFileSync(README, 'utf8');
}

/** The README as it should be. */
export function renewed(): string {
  return `${readme().split(MARK)[0] ?? ''}${generated()}`;
}

if (import.meta.main) writeFileSync(README, renewed());
