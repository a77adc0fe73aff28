/**
 * The errors of the library. Each names what was got, what was expected and what to do, and has a
 * `code` that programs can switch on.
 *
 * @module
 */

/** What an error is made of. */
export interface ErrorDetails {
  /** What the caller gave, or what happened. */
  readonly got: string;
  /** What would have been right. */
  readonly expected: string;
  /** What to do about it. */
  readonly hint: string;
  /** The error that led to this one, if any. */
  readonly cause?: unknown;
}

/** The base of every error that this library throws on purpose. */
export class KvasirError extends Error {
  /** A stable name for programs, such as `"KVASIR_SHAPE"`. */
  readonly code: string;
  /** What the caller gave, or what happened. */
  readonly got: string;
  /** What would have been right. */
  readonly expected: string;
  /** What to do about it. */
  readonly hint: string;

  /**
   * Makes an error whose message is composed of its details.
   *
   * @param subject What the message is about, such as `"k"` or `"openDevice"`.
   * @param details What was got, what was expected, what to do.
   * @param code The stable name; subclasses set their own.
   */
  constructor(subject: string, details: ErrorDetails, code: string = "KVASIR") {
    const { got, expected, hint, cause } = details;
    super(`${subject}: got ${got}, expected ${expected}. ${hint}`, { cause });
    this.name = new.target.name;
    this.code = code;
    this.got = got;
    this.expected = expected;
    this.hint = hint;
  }
}

/** A tensor's shape does not fit, or the number of values does not fit a shape. */
export class ShapeError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_SHAPE");
  }
}

/** A dtype is unknown, or not the one that a call needs. */
export class DTypeError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_DTYPE");
  }
}

/** An option or argument is unknown, of the wrong type, or out of its range. */
export class OptionError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_OPTION");
  }
}

/** A planned call is run without a plan, or with tensors that its plan does not fit. */
export class PlanError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_PLAN");
  }
}

/** Something is larger than the device's limits; nothing has run. */
export class LimitError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_LIMIT");
  }
}

/** The device has no memory for an allocation; whatever existed before still does. */
export class OutOfMemoryError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_OUT_OF_MEMORY");
  }
}

/** The GPU device was lost (or destroyed): open a new one and upload again. */
export class DeviceLostError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_DEVICE_LOST");
  }
}

/** A shader or pipeline was refused; the message holds the compiler's own words. */
export class ShaderError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_SHADER");
  }
}

/** `backend: "webgpu"` was asked for and there is no adapter. */
export class NoAdapterError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_NO_ADAPTER");
  }
}

/** A tensor or device is used after `destroy()`. */
export class DestroyedError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_DESTROYED");
  }
}

/** The tensors of one call belong to different devices. */
export class DeviceMismatchError extends KvasirError {
  /** See {@linkcode KvasirError}. */
  constructor(subject: string, details: ErrorDetails) {
    super(subject, details, "KVASIR_DEVICE_MISMATCH");
  }
}
