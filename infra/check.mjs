// Types and lint over one program: most of what lint asks about the types, the type check has found out already. Prints what
// is wrong; the exit code is 2 where the types are, 4 where lint is, 6 where both are (1: it could not check).
import { fileURLToPath } from 'node:url';
import { ESLint } from 'eslint';
import ts from 'typescript';

const root = fileURLToPath(new URL('..', import.meta.url));
const stop = (fault) => { throw new Error(ts.flattenDiagnosticMessageText(fault.messageText, '\n')); };
const { fileNames: rootNames, options, errors } = ts.getParsedCommandLineOfConfigFile(`${root}tsconfig.json`, undefined, { ...ts.sys, onUnRecoverableConfigFileDiagnostic: stop });
const host = ts.createCompilerHost(options);
const program = ts.createProgram({ rootNames, options, host, configFileParsingDiagnostics: errors });
const mistyped = ts.getPreEmitDiagnostics(program);
process.stdout.write(ts.formatDiagnostics(mistyped, host));

const eslint = new ESLint({ cwd: root, overrideConfig: { languageOptions: { parserOptions: { projectService: false, programs: [program] } } } });
const results = await eslint.lintFiles(['.']);
process.stdout.write(await (await eslint.loadFormatter('stylish')).format(results));
process.exitCode = (mistyped.length > 0 ? 2 : 0) + (results.some(({ errorCount }) => errorCount > 0) ? 4 : 0);
