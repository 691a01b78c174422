/** Tests run as ES modules; swc strips the types, tsc checks them (make lint). */
export default {
  testEnvironment: 'node',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': ['@swc/jest', { jsc: { target: 'es2024', parser: { syntax: 'typescript' } }, module: { type: 'es6' } }],
  },
  testSequencer: '<rootDir>/infra/test-order.mjs',
  modulePathIgnorePatterns: ['<rootDir>/.cache', '<rootDir>/data'],
  // A test that hangs is cut off; a machine that others use as well may be many times slower than an idle one.
  testTimeout: 120_000,
};
