// The page at /docs: renders /openapi.json in the browser, with nothing loaded from anywhere else. Script and style stand in
// the page; the policy that goes with it names them by their hashes and allows nothing more.
import { createHash } from 'node:crypto';

const STYLE = `
:root { color-scheme: light dark; --line: light-dark(#d8dce2, #3a3f47); --soft: light-dark(#f4f6f8, #23272d); --ink: light-dark(#1c2127, #e8eaed); --dim: light-dark(#5b6570, #a3acb6); --get: light-dark(#0b6e4f, #5ccf9f); --post: light-dark(#8a4b00, #f0b060); }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: light-dark(#fff, #191c20); }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } h3 { font-size: .85rem; margin: 1rem 0 .3rem; color: var(--dim); }
input { width: 100%; padding: .5rem; font: inherit; margin-top: 1rem; border: 1px solid var(--line); border-radius: 4px; background: var(--soft); color: inherit; }
details.operation { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; }
details.operation > summary { padding: .5rem .75rem; cursor: pointer; display: flex; gap: .75rem; align-items: baseline; flex-wrap: wrap; }
details.operation[open] > summary { border-bottom: 1px solid var(--line); background: var(--soft); }
.inside { padding: .25rem 1rem 1rem; }
.method { font-weight: 700; min-width: 3.2rem; } .GET { color: var(--get); } .POST { color: var(--post); }
code, pre { font: 13px/1.45 ui-monospace, monospace; } pre { background: var(--soft); padding: .6rem; overflow: auto; border-radius: 4px; max-height: 30rem; margin: .3rem 0; }
.dim { color: var(--dim); } table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto; } td, th { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid var(--line); }
:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
`;

const SCRIPT = `
'use strict';
const make = (name, attributes, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
};
const typeOf = (schema) => {
  if (!schema || typeof schema !== 'object') return 'any';
  if ('const' in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const options = schema.anyOf || schema.oneOf;
  if (options) return options.map(typeOf).join(' | ');
  if (schema.type === 'array') return typeOf(schema.items) + '[]';
  return (Array.isArray(schema.type) ? schema.type.join(' | ') : schema.type || 'any') + (schema.format ? ' (' + schema.format + ')' : '');
};
const outline = (schema, depth) => {
  const pad = '  '.repeat(depth);
  if (!schema || typeof schema !== 'object') return 'any';
  const options = (schema.anyOf || schema.oneOf || []).filter((one) => one.type !== 'null');
  const nullable = (schema.anyOf || schema.oneOf || []).length > options.length ? ' | null' : '';
  if (options.length > 0) return options.map((one) => outline(one, depth)).join(' | ') + nullable;
  if (schema.type === 'array') return '[' + outline(schema.items, depth) + ']';
  if (!schema.properties) return typeOf(schema);
  const required = new Set(schema.required || []);
  const lines = Object.entries(schema.properties).map(([name, one]) => pad + '  ' + name + (required.has(name) ? '' : '?') + ': ' + outline(one, depth + 1) + (one.description ? '   // ' + one.description : ''));
  return '{\\n' + lines.join('\\n') + '\\n' + pad + '}';
};
const pretty = (value) => typeof value === 'string' ? value : JSON.stringify(value, null, 2);
// Of many alike, the names alone, unfolded when they are wanted.
const MANY = 8;
const parameters = (operation) => {
  if (operation.parameters.length === 0) return null;
  const alike = Map.groupBy(operation.parameters, (one) => one.description || one.name);
  const many = [...alike.values()].filter((group) => group.length >= MANY);
  const folded = many.map((group) => make('tr', {}, make('td', { colspan: '2' }, make('details', {}, make('summary', {}, group.length + ' alike'), ...group.map((one) => make('div', {}, make('code', {}, one.name))))), make('td', {}, make('code', {}, typeOf(group[0].schema))), make('td', {}, group[0].description)));
  const rows = operation.parameters.filter((one) => !many.some((group) => group.includes(one))).map((one) => make('tr', {}, make('td', {}, make('code', {}, one.name + (one.required ? ' *' : ''))), make('td', { class: 'dim' }, one.in), make('td', {}, make('code', {}, typeOf(one.schema))), make('td', {}, one.description || '')));
  return make('div', {}, make('h3', {}, 'Parameters (* required)'), make('table', {}, ...rows, ...folded));
};
const contents = (title, content) => Object.entries(content || {}).map(([type, one]) => make('div', {}, make('h3', {}, title + ' ', make('code', {}, type)), make('pre', { tabindex: '0' }, outline(one.schema, 0)), one.example === undefined ? null : make('pre', { tabindex: '0' }, pretty(one.example))));
const curl = (path, method, operation) => {
  const query = operation.parameters.filter((one) => one.in === 'query' && one.required).map((one) => one.name + '=' + encodeURIComponent(one.example === undefined ? '...' : one.example)).join('&');
  const url = location.origin + path.replace(/\\{(\\w+)\\}/g, (whole, name) => { const one = operation.parameters.find((each) => each.name === name); return encodeURIComponent(one && one.example !== undefined ? one.example : name.toUpperCase()); }) + (query ? '?' + query : '');
  const body = operation.requestBody && Object.entries(operation.requestBody.content).find(([, one]) => one.example !== undefined);
  return "curl '" + url + "'" + (operation.security.length ? " -H 'x-api-key: KEY'" : '') + (body ? " -H 'content-type: " + body[0] + "' -d '" + JSON.stringify(body[1].example) + "'" : '');
};
const failures = (operation) => make('div', {}, make('h3', {}, 'Refusals'), make('table', {}, ...Object.entries(operation.responses).filter(([status]) => status !== '200').map(([status, one]) => make('tr', {}, make('td', {}, status), make('td', {}, make('code', {}, one.description.replaceAll(String.fromCharCode(96), '')))))));
const operationOf = (path, method, operation) => {
  const inside = make('div', { class: 'inside' }, make('p', {}, operation.description || ''), parameters(operation));
  if (operation.requestBody) { if (operation.requestBody.description) inside.append(make('p', {}, operation.requestBody.description)); inside.append(...contents('Request', operation.requestBody.content)); }
  inside.append(make('h3', {}, 'As curl'), make('pre', { tabindex: '0' }, curl(path, method, operation)), ...contents('Answer', operation.responses['200'].content), failures(operation));
  const details = make('details', { class: 'operation', id: operation.operationId }, make('summary', {}, make('span', { class: 'method ' + method.toUpperCase() }, method.toUpperCase()), make('code', {}, path), make('span', { class: 'dim' }, operation.summary)), inside);
  details.dataset.text = (path + ' ' + operation.summary + ' ' + operation.description).toLowerCase();
  return details;
};
const show = (openapi) => {
  const main = document.querySelector('main');
  main.replaceChildren();
  for (const { name } of openapi.tags) {
    const section = make('section', {}, make('h2', {}, name));
    for (const [path, item] of Object.entries(openapi.paths)) for (const [method, operation] of Object.entries(item)) if (operation.tags.includes(name)) section.append(operationOf(path, method, operation));
    main.append(section);
  }
  document.querySelector('#about').textContent = openapi.info.description + ' Version ' + openapi.info.version + '.';
  const open = location.hash && document.getElementById(location.hash.slice(1));
  if (open) { open.open = true; open.scrollIntoView(); }
};
document.querySelector('input').addEventListener('input', (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const one of document.querySelectorAll('details.operation')) one.hidden = !one.dataset.text.includes(wanted);
});
fetch('/openapi.json').then((answer) => answer.json()).then(show).catch(() => { document.querySelector('main').textContent = 'The document at /openapi.json could not be read.'; });
`;

const PAGE = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Throughline: API</title><link rel="icon" href="data:,"><style>${STYLE}</style></head>
<body>
<h1>Throughline</h1>
<p id="about" class="dim"></p>
<p>The document itself: <a href="/openapi.json">/openapi.json</a>. Send your key as <code>x-api-key</code>.</p>
<input type="search" placeholder="Find an endpoint" aria-label="Find an endpoint">
<main>Reading /openapi.json …</main>
<noscript>This page needs JavaScript; <a href="/openapi.json">/openapi.json</a> does not.</noscript>
<script>${SCRIPT}</script>
</body>
</html>
`;

function hashOf(text: string): string { return `'sha256-${createHash('sha256').update(text).digest('base64')}'`; }

/** The page and the policy that it is served with. */
export function docsPage(): { readonly html: string; readonly policy: string } {
  const policy = `default-src 'none'; script-src ${hashOf(SCRIPT)}; style-src ${hashOf(STYLE)}; connect-src 'self'; img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'`;
  return { html: PAGE, policy };
}
