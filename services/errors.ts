// The operating errors: thrown with a code, whether another try can help, and the cause. Expected outcomes are values in
// return types and never stand here; programmer errors are assertions (design.md section 8).

/** Every code with whether a retry can help. A total table: an error cannot be thrown without standing here. */
export const ERROR_CODES = {
  storeCorrupt: false,
  storeFull: false,
  storeReadOnly: false,
  storeLocked: false,
  storeBusy: true,
  storeClosed: false,
  storeUnavailable: true,
  storeTooNew: false,
  storeUnfit: false,
  sourceUnavailable: true,
  foreignStore: false,
  positionPastHead: false,
  eventTooLarge: false,
  streamDeleted: false,
  viewMissing: false,
  workspaceMissing: true,
  badConfiguration: false,
  badMasterKey: false,
  portTaken: false,
  serverRefused: false,
  serverUnreachable: true,
  fileUnreadable: false,
} as const satisfies Record<string, boolean>;
export type ErrorCode = keyof typeof ERROR_CODES;

export function isErrorCode(code: string | null | undefined): code is ErrorCode { return typeof code === 'string' && Object.hasOwn(ERROR_CODES, code); }

export class OperatingError extends Error {
  readonly code: ErrorCode;
  readonly retriable: boolean;
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'OperatingError';
    this.code = code;
    this.retriable = ERROR_CODES[code];
  }
}
