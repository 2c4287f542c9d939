/**
 * Keeps a shopper's checkout alive in the browser. One ES module, no dependencies, no build step.
 *
 *     const checkout = new CheckoutSessions({ token: () => session.access_token });
 *     checkout.addEventListener("change", () => render(checkout.state));
 *     await checkout.start();
 *
 * Every operation resolves to the session that came of it, or to null where `state.notice` says why not. None rejects.
 *
 * A wish (create, change of package, step, payment) is written to storage before it is sent and taken out once it is
 * answered. Lost answers, restarts, reloads and cut connections therefore only delay it: it is sent again under the
 * same idempotency key, which the API answers with the same task.
 *
 * @module
 */
export type Session = {
    id: string;
    user_id: string;
    status: "active" | "completed" | "expired" | "invalidated";
    valid: boolean;
    next: "continue" | "recover" | "restart" | "done";
    package: string;
    step: string | null;
    data: Record<string, unknown>;
    origin: "created" | "renewed" | "recovered";
    previous_session_id: string | null;
    successor_id: string | null;
    payment_reference: string | null;
    seconds_left: number;
    created_at: string;
    updated_at: string;
    expires_at: string;
    completed_at: string | null;
};
export type Notice = {
    /**
     * the API's, or `recovered`, `moved`, `offline`, `unreachable`, `slow`
     */
    code: string;
    message: string;
    tone: "info" | "error";
    /**
     * what the page offers: `continue`, `done`, `restart`, `retry`, `sign_in`, `wait`, `fix`
     */
    next: string;
};
export type Kind = "create" | "navigate" | "renew" | "recover" | "complete";
export type State = {
    /**
     * whether `start` is through
     */
    ready: boolean;
    /**
     * the shopper's checkout; completed ones too
     */
    session: Session | null;
    /**
     * what is under way
     */
    doing: Kind | "validate" | null;
    /**
     * why that takes so long; the client goes on by itself
     */
    trouble: Notice | null;
    /**
     * what the client did by itself, or what it could not
     */
    notice: Notice | null;
};
export type Options = {
    /**
     * gives the bearer token; `refused` asks
     * for a fresh one, since the API did not take the last
     */
    token: (refused: boolean) => string | null | Promise<string | null>;
    /**
     * of the API; the page's own origin unless given
     */
    url?: string;
    /**
     * under which tabs share the checkout
     */
    name?: string;
    /**
     * sentences by code, in place of the English ones
     */
    messages?: Record<string, string>;
    fetch?: typeof globalThis.fetch;
    /**
     * localStorage unless given
     */
    storage?: Pick<Storage, "getItem" | "setItem" | "removeItem">;
};
export type Wish = {
    /**
     * the idempotency key
     */
    key: string;
    kind: Kind;
    /**
     * the one addressed
     */
    session: string | null;
    body: Record<string, unknown>;
    /**
     * milliseconds since the epoch
     */
    at: number;
    /**
     * what the shopper saw when they asked
     */
    shown: Session | null;
};
export type Problem = Record<string, any> & {
    code: string;
    message: string;
    next: string;
};
/** What the API refused. */
export declare class CheckoutError extends Error {
    problem: Problem;
    /** @param {Problem} problem */
    constructor(problem: Problem);
}
/**
 * Milliseconds before try number `attempt` + 1: doubling, between half and all of it, so that clients spread.
 * @param {number} attempt from 0
 * @param {number} [random] from 0 to 1
 */
export declare const backoff: (attempt: number, random?: number) => number;
/**
 * Whether another tab's session is news to a tab that shows `mine`. A finished order stays on its page.
 * @param {Session} theirs
 * @param {Session | null} mine
 */
export declare function isNews(theirs: Session, mine: Session | null): boolean;
/**
 * The shopper's one checkout, shared by the tabs of a browser.
 *
 * Events: `change` (detail: State) and `request` (detail: method, path, status, ms, attempt; status 0 is no answer).
 */
export declare class CheckoutSessions extends EventTarget {
    #private;
    /** @param {Options} options */
    constructor(options: Options);
    /** What the page renders. */
    get state(): State;
    /** Until the session expires, by the server's clock. */
    get secondsLeft(): number;
    /**
     * Take up what there is: wishes that a closed page left, the session in storage, the user's active one.
     * @param {string | null} [sessionId] e.g. of a link; in place of the one in storage
     * @returns {Promise<Session | null>}
     */
    start(sessionId?: string | null): Promise<Session | null>;
    /**
     * Begin a checkout. It takes the place of the one that is open.
     * @param {string} package_
     * @param {{step?: string, data?: Record<string, unknown>}} [more]
     */
    create(package_: string, more?: {
        step?: string;
        data?: Record<string, unknown>;
    }): Promise<Session | null>;
    /**
     * Move to another step, or change data: its top-level keys are merged, null removes one.
     * @param {string | null} step null keeps it
     * @param {Record<string, unknown>} [data]
     */
    navigate(step: string | null, data?: Record<string, unknown>): Promise<Session | null>;
    /**
     * Renew with another package and all the rest of the data.
     * @param {string} package_
     * @param {Record<string, unknown>} [data]
     */
    changePackage(package_: string, data?: Record<string, unknown>): Promise<Session | null>;
    /** Bring an expired checkout back. The client does it by itself wherever the API says so. */
    recover(): Promise<Session | null>;
    /**
     * The payment went through.
     * @param {string} reference the payment's; a repeat with the same one is safe
     */
    complete(reference: string): Promise<Session | null>;
    /** Look whether the checkout still stands; heal it if not. */
    validate(): Promise<Session | null>;
    /** What failed last, once more; e.g. after the shopper signed in again. */
    retry(): Promise<Session | null>;
    /**
     * The line of the session and what was asked of it, for curious pages.
     * @returns {Promise<{sessions: Session[], tasks: Record<string, any>[]}>}
     */
    history(): Promise<{
        sessions: Session[];
        tasks: Record<string, any>[];
    }>;
    /** Take the notice away, once the shopper has read it. */
    dismiss(): void;
    /** Forget everything in this browser, e.g. when the shopper signs out. */
    forget(): void;
    /** Stop; what is under way is left to the next page. */
    close(): void;
}
