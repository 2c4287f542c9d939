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

/**
 * @typedef {object} Session as the API shows it
 * @property {string} id
 * @property {string} user_id
 * @property {"active" | "completed" | "expired" | "invalidated"} status
 * @property {boolean} valid
 * @property {"continue" | "recover" | "restart" | "done"} next
 * @property {string} package
 * @property {string | null} step
 * @property {Record<string, unknown>} data
 * @property {"created" | "renewed" | "recovered"} origin
 * @property {string | null} previous_session_id
 * @property {string | null} successor_id
 * @property {string | null} payment_reference
 * @property {number} seconds_left
 * @property {string} created_at
 * @property {string} updated_at
 * @property {string} expires_at
 * @property {string | null} completed_at
 */

/**
 * @typedef {object} Notice a sentence for the shopper
 * @property {string} code the API's, or `recovered`, `moved`, `offline`, `unreachable`, `slow`
 * @property {string} message
 * @property {"info" | "error"} tone
 * @property {string} next what the page offers: `continue`, `done`, `restart`, `retry`, `sign_in`, `wait`, `fix`
 */

/** @typedef {"create" | "navigate" | "renew" | "recover" | "complete"} Kind */

/**
 * @typedef {object} State frozen; a new one with each `change`
 * @property {boolean} ready whether `start` is through
 * @property {Session | null} session the shopper's checkout; completed ones too
 * @property {Kind | "validate" | null} doing what is under way
 * @property {Notice | null} trouble why that takes so long; the client goes on by itself
 * @property {Notice | null} notice what the client did by itself, or what it could not
 */

/**
 * @typedef {object} Options
 * @property {(refused: boolean) => string | null | Promise<string | null>} token gives the bearer token; `refused` asks
 *     for a fresh one, since the API did not take the last
 * @property {string} [url] of the API; the page's own origin unless given
 * @property {string} [name] under which tabs share the checkout
 * @property {Record<string, string>} [messages] sentences by code, in place of the English ones
 * @property {typeof globalThis.fetch} [fetch]
 * @property {Pick<Storage, "getItem" | "setItem" | "removeItem">} [storage] localStorage unless given
 */

/**
 * @typedef {object} Wish what the shopper asked for and what is not answered yet
 * @property {string} key the idempotency key
 * @property {Kind} kind
 * @property {string | null} session the one addressed
 * @property {Record<string, unknown>} body
 * @property {number} at milliseconds since the epoch
 * @property {Session | null} shown what the shopper saw when they asked
 */

/** @typedef {Record<string, any> & {code: string, message: string, next: string}} Problem of the API, RFC 9457 */

const WAIT = 10; // seconds that the API holds a request until there is a result
const GRACE = 5000; // ms beyond it after which a connection counts as dead
const SLOW = 2000; // ms after which the shopper is told that it takes longer
const BACKOFF = 250; // ms before the second try
const BACKOFF_LIMIT = 8000;
const FAULTS = 4; // tries of a request that meets a fault; outages have no such limit
const HEALINGS = 3; // sessions that one wish follows
const STALE = 600_000; // ms after which a wish left by a closed page is forgotten, except a payment
const TIMER_LIMIT = 2 ** 31 - 1;

const OUTAGES = new Set([429, 502, 503, 504]);

const UNKNOWN = "Something went wrong on our side. Please try again.";

/** @type {Record<string, string>} */
const MESSAGES = {
  recovered: "Your checkout had expired. We restored it with everything in it.",
  moved: "Your checkout went on elsewhere. This is its latest version.",
  offline: "You are offline. Nothing is lost, we go on as soon as you are back.",
  unreachable: "We cannot reach the shop right now. Nothing is lost, we keep trying.",
  slow: "This takes longer than usual. Nothing is lost, we go on by ourselves.",
};

/** What the API refused. */
export class CheckoutError extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(`${problem.code}: ${problem.message}`);
    this.name = "CheckoutError";
    this.problem = problem;
  }
}

/**
 * Milliseconds before try number `attempt` + 1: doubling, between half and all of it, so that clients spread.
 * @param {number} attempt from 0
 * @param {number} [random] from 0 to 1
 */
export const backoff = (attempt, random = Math.random()) =>
  Math.min(BACKOFF_LIMIT, BACKOFF * 2 ** attempt) * (0.5 + random / 2);

/**
 * Whether another tab's session is news to a tab that shows `mine`. A finished order stays on its page.
 * @param {Session} theirs
 * @param {Session | null} mine
 */
export function isNews(theirs, mine) {
  if (!mine) return true;
  if (mine.id === theirs.id) return theirs.updated_at > mine.updated_at;
  return mine.status !== "completed" && mine.user_id === theirs.user_id && theirs.created_at >= mine.created_at;
}

/**
 * The shopper's one checkout, shared by the tabs of a browser.
 *
 * Events: `change` (detail: State) and `request` (detail: method, path, status, ms, attempt; status 0 is no answer).
 */
export class CheckoutSessions extends EventTarget {
  /** @type {State} */
  #state = Object.freeze({ ready: false, session: null, doing: null, trouble: null, notice: null });
  /** @type {Required<Options>} */
  #options;
  #storage;
  /** @type {Promise<unknown>} */
  #queue = Promise.resolve();
  /** @type {Map<string, Promise<Session | null>>} */
  #queued = new Map();
  #last = "";
  /** @type {Wish | null} the one to repeat on `retry` */
  #failed = null;
  #readAt = 0;
  #closing = new AbortController();
  #cut = new AbortController();
  #channel;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #expiry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #slow;

  /** @param {Options} options */
  constructor(options) {
    super();
    const fetch = /** @type {typeof globalThis.fetch} */ ((...request) => globalThis.fetch(...request));
    const storage = options.storage ?? defaultStorage();
    this.#options = { url: "", name: "checkout", messages: {}, fetch, storage, ...options };
    this.#storage = new Kept(storage, this.#options.name);
    this.#channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(this.#options.name) : null;
    const { signal } = this.#closing;
    this.#channel?.addEventListener("message", ({ data }) => this.#hear(data), { signal });
    globalThis.addEventListener?.("offline", () => this.#cut.abort(), { signal });
    globalThis.document?.addEventListener("visibilitychange", () => this.#look(), { signal });
    globalThis.addEventListener?.("pageshow", (event) => event.persisted && this.#look(), { signal });
  }

  /** What the page renders. */
  get state() {
    return this.#state;
  }

  /** Until the session expires, by the server's clock. */
  get secondsLeft() {
    const { session } = this.#state;
    return session?.valid ? Math.max(0, session.seconds_left - (performance.now() - this.#readAt) / 1000) : 0;
  }

  /**
   * Take up what there is: wishes that a closed page left, the session in storage, the user's active one.
   * @param {string | null} [sessionId] e.g. of a link; in place of the one in storage
   * @returns {Promise<Session | null>}
   */
  start(sessionId) {
    return this.#enqueue("start", "validate", async () => {
      try {
        let session = null;
        for (const wish of this.#storage.wishes()) session = await this.#fulfil(wish);
        return session ?? (await this.#find(addressable(sessionId) ?? this.#storage.sessionId));
      } finally {
        this.#set({ ready: true });
      }
    });
  }

  /**
   * Begin a checkout. It takes the place of the one that is open.
   * @param {string} package_
   * @param {{step?: string, data?: Record<string, unknown>}} [more]
   */
  create(package_, more = {}) {
    return this.#wish("create", { package: package_, ...more });
  }

  /**
   * Move to another step, or change data: its top-level keys are merged, null removes one.
   * @param {string | null} step null keeps it
   * @param {Record<string, unknown>} [data]
   */
  navigate(step, data) {
    return this.#wish("navigate", { ...(step && { step }), ...(data && { data }) });
  }

  /**
   * Renew with another package and all the rest of the data.
   * @param {string} package_
   * @param {Record<string, unknown>} [data]
   */
  changePackage(package_, data) {
    return this.#wish("renew", { package: package_, ...(data && { data }) });
  }

  /** Bring an expired checkout back. The client does it by itself wherever the API says so. */
  recover() {
    return this.#wish("recover", {});
  }

  /**
   * The payment went through.
   * @param {string} reference the payment's; a repeat with the same one is safe
   */
  complete(reference) {
    return this.#wish("complete", { payment_reference: reference });
  }

  /** Look whether the checkout still stands; heal it if not. */
  validate() {
    return this.#enqueue("validate", "validate", () => this.#find(this.#state.session?.id ?? this.#storage.sessionId));
  }

  /** What failed last, once more; e.g. after the shopper signed in again. */
  retry() {
    const wish = this.#failed;
    return wish ? this.#enqueue(wish.key, wish.kind, () => this.#fulfil(wish)) : this.validate();
  }

  /**
   * The line of the session and what was asked of it, for curious pages.
   * @returns {Promise<{sessions: Session[], tasks: Record<string, any>[]}>}
   */
  async history() {
    const { session } = this.#state;
    return session ? this.#request("GET", `/api/sessions/${session.id}/history`) : { sessions: [], tasks: [] };
  }

  /** Take the notice away, once the shopper has read it. */
  dismiss() {
    this.#set({ notice: null });
  }

  /** Forget everything in this browser, e.g. when the shopper signs out. */
  forget() {
    this.#storage.clear();
    this.#failed = null;
    this.#set({ session: null, notice: null });
  }

  /** Stop; what is under way is left to the next page. */
  close() {
    clearTimeout(this.#expiry);
    this.#closing.abort();
    this.#cut.abort();
    this.#channel?.close();
  }

  /** @param {Kind} kind @param {Record<string, unknown>} body @returns {Promise<Session | null>} */
  #wish(kind, body) {
    const shown = this.#state.session;
    return this.#enqueue(kind + JSON.stringify(body), kind, async () => {
      const live = this.#state.session;
      const session = kind === "create" ? null : (live?.id ?? this.#storage.sessionId);
      if (!session && kind !== "create") return this.#find(null);
      const wish = { key: newKey(), kind, session, body, at: Date.now(), shown };
      return this.#fulfil(live && session ? await this.#onto(live, wish) : wish);
    });
  }

  /**
   * One after the other. What is asked twice in a row, as by a double click, is done once; a payment in any case.
   * @param {string} name @param {Kind | "validate"} doing @param {() => Promise<Session | null>} work
   * @returns {Promise<Session | null>}
   */
  #enqueue(name, doing, work) {
    const queued = this.#queued.get(name);
    if (queued && (name === this.#last || doing === "complete")) return queued;
    const promise = this.#queue.then(async () => {
      this.#arm();
      const { notice } = this.#state;
      this.#set({ doing, notice: notice?.tone === "info" ? notice : null });
      try {
        return await work();
      } catch (error) {
        return this.#closing.signal.aborted ? null : this.#fail(error);
      } finally {
        clearTimeout(this.#slow);
        if (this.#queued.get(name) === promise) this.#queued.delete(name);
        this.#set({ doing: null, trouble: null });
      }
    });
    this.#last = name;
    this.#queued.set(name, promise);
    this.#queue = promise;
    return promise;
  }

  /** Say that it takes longer, if it does from now on. */
  #arm() {
    clearTimeout(this.#slow);
    this.#set({ trouble: null });
    this.#slow = setTimeout(() => this.#trouble("slow"), SLOW);
  }

  /** @param {unknown} error */
  #fail(error) {
    if (!(error instanceof CheckoutError)) console.error(error);
    const problem = error instanceof CheckoutError ? error.problem : { code: "unknown", message: "", next: "retry" };
    if (problem.next === "restart") {
      this.#storage.sessionId = null;
      this.#set({ session: null });
    }
    this.#set({ notice: this.#notice(problem.code, "error", problem.next, problem.message) });
    return null;
  }

  /** Send a wish until it is answered, on whichever session lives. @param {Wish} wish */
  async #fulfil(wish) {
    for (let healings = 0; ; healings++) {
      this.#hold(wish);
      try {
        const session = await this.#send(wish);
        this.#forget(wish);
        if (!stands(session)) return await this.#heal(session.id, session.successor_id); // overtaken by another tab
        return this.#adopt(session, wish.kind === "recover" && session.id !== wish.session ? "recovered" : undefined);
      } catch (error) {
        if (!(error instanceof CheckoutError)) throw error;
        const { code, next } = error.problem;
        if (next === "sign_in") throw error; // not answered yet
        this.#forget(wish);
        if (next === "done") return await this.#done(error.problem, wish);
        const lost = next === "recover" || code === "session_not_found";
        if (!lost || !wish.session || wish.kind === "recover" || healings === HEALINGS) {
          if (next === "retry") this.#hold({ ...wish, key: newKey() });
          throw error;
        }
        const live = await this.#heal(wish.session, error.problem.successor_id);
        if (live.status === "completed") return live;
        wish = await this.#onto(live, wish);
      }
    }
  }

  /** Until it is answered; `retry` takes up a payment before all else. @param {Wish} wish */
  #hold(wish) {
    if (wish.kind === "complete" || this.#failed?.kind !== "complete") this.#failed = wish;
    this.#storage.keep(wish);
  }

  /** @param {Wish} wish */
  #forget(wish) {
    if (this.#failed?.kind === wish.kind) this.#failed = null;
    this.#storage.drop(wish);
  }

  /** The wish on the session that took the place of the one addressed. @param {Session} live @param {Wish} wish */
  async #onto(live, wish) {
    const { shown } = wish;
    if (wish.kind === "complete" && shown && live.package !== shown.package) {
      // A payment is for what the shopper saw, whatever else they chose on another device.
      const body = { package: shown.package, data: shown.data };
      live = await this.#fulfil({ ...wish, key: newKey(), kind: "renew", session: live.id, body });
    }
    return { ...wish, key: newKey(), session: live.id };
  }

  /** @param {Problem} problem @param {Wish} wish */
  async #done(problem, wish) {
    const session = await this.#read(problem.session_id ?? wish.session);
    this.#adopt(session);
    const tone = session.status === "completed" ? "info" : "error";
    this.#set({ notice: this.#notice(problem.code, tone, problem.next, problem.message) });
    return session;
  }

  /** @param {Wish} wish @returns {Promise<Session>} */
  async #send({ kind, session, body, key }) {
    const path = `/api/sessions${session ? `/${encodeURIComponent(session)}` : ""}`;
    if (kind === "navigate") return this.#request("PATCH", path, body);
    const headers = { Prefer: `wait=${WAIT}`, "Idempotency-Key": key };
    let task = await this.#request("POST", kind === "create" ? path : `${path}/${kind}`, body, headers);
    for (let attempt = 0; task.state === "PENDING"; attempt++) {
      if (attempt) await this.#pause(backoff(0)); // a long poll that ends early, as at a restart, must not spin
      task = await this.#request("GET", `/api/tasks/${task.task_id ?? task.id}?wait=${WAIT}`);
    }
    if (task.error) throw new CheckoutError(task.error);
    return task.result ?? (await this.#read(task.session_id));
  }

  /** The live session that stands for this one. @param {string | null} id @returns {Promise<Session | null>} */
  async #find(id) {
    if (!id) {
      try {
        return this.#adopt(await this.#request("GET", "/api/sessions/current"));
      } catch (error) {
        if (error instanceof CheckoutError && error.problem.code === "no_active_session") return null;
        throw error;
      }
    }
    try {
      const session = await this.#read(id);
      return stands(session) ? this.#adopt(session) : await this.#heal(id, session.successor_id);
    } catch (error) {
      if (error instanceof CheckoutError && error.problem.code === "session_not_found") return this.#heal(id, null);
      throw error;
    }
  }

  /** @param {string} id @param {string | null | undefined} successor @returns {Promise<Session>} */
  async #heal(id, successor) {
    const live = successor && (await this.#read(successor));
    if (live && live.valid) return this.#adopt(live, "moved");
    return this.#fulfil({ key: newKey(), kind: "recover", session: id, body: {}, at: Date.now(), shown: null });
  }

  /** @param {string} id @returns {Promise<Session>} */
  #read(id) {
    return this.#request("GET", `/api/sessions/${encodeURIComponent(id)}`);
  }

  /** @param {Session} session @param {string} [code] what the client did by itself */
  #adopt(session, code) {
    const heard = this.#state.session;
    // Another tab went on since this was read, and was quicker to tell.
    const other = session.valid && heard?.valid && heard.id !== session.id && heard.user_id === session.user_id;
    if (other && !isNews(session, heard)) return heard;
    this.#readAt = performance.now();
    this.#storage.sessionId = session.id;
    this.#channel?.postMessage(session);
    this.#set({ session, ...(code && { notice: this.#notice(code, "info", "continue") }) });
    this.#watchExpiry();
    return session;
  }

  /** Another tab went on. @param {Session} session */
  #hear(session) {
    const mine = this.#state.session;
    if (!this.#state.ready || !isNews(session, mine)) return;
    this.#readAt = performance.now();
    const moved = mine && mine.id !== session.id;
    this.#set({ session, ...(moved && { notice: this.#notice("moved", "info", "continue") }) });
    this.#watchExpiry();
  }

  #watchExpiry() {
    clearTimeout(this.#expiry);
    if (!this.#state.session?.valid) return;
    this.#expiry = setTimeout(() => this.#look(), Math.min(this.secondsLeft * 1000 + 50, TIMER_LIMIT));
  }

  /** The shopper is back at this tab, or the time is over. */
  #look() {
    if (this.#state.ready && !this.#state.doing && globalThis.document?.visibilityState !== "hidden") this.validate();
  }

  /**
   * Ask until there is an answer: outages are waited out, a refused token is refreshed once.
   * @param {string} method @param {string} path @param {unknown} [body] @param {Record<string, string>} [more] headers
   * @returns {Promise<any>}
   */
  async #request(method, path, body, more) {
    let refused = false;
    for (let attempt = 0; ; attempt++) {
      const began = performance.now();
      const { status, content, after } = await this.#try(method, path, body, more, refused);
      this.#tell({ method, path, status, attempt, ms: performance.now() - began });
      this.#closing.signal.throwIfAborted();
      if (status >= 200 && status < 300 && content) {
        if (this.#state.trouble && this.#state.trouble.code !== "slow") this.#arm();
        return content;
      }
      const { code } = content ?? {};
      const outage = !status || !content || OUTAGES.has(status) || code === "session_pending";
      const again = code !== "gave_up" && (outage || (status >= 500 && attempt < FAULTS));
      if (status === 401 && !refused) refused = true;
      else if (!again) throw new CheckoutError({ code: "unknown", message: "", next: "retry", ...content });
      else {
        if (!status) this.#trouble(globalThis.navigator?.onLine === false ? "offline" : "unreachable");
        await this.#pause(Math.max(after * 1000, backoff(attempt)));
      }
    }
  }

  /**
   * @param {string} method @param {string} path @param {unknown} body @param {Record<string, string> | undefined} more
   * @param {boolean} refused
   * @returns {Promise<{status: number, content: any, after: number}>} status 0 where none came
   */
  async #try(method, path, body, more, refused) {
    const cut = (this.#cut = new AbortController());
    const timer = setTimeout(() => cut.abort(), WAIT * 1000 + GRACE);
    try {
      const token = await this.#options.token(refused);
      const headers = {
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(body !== undefined && { "Content-Type": "application/json" }),
        ...more,
      };
      const init = { method, headers, body: JSON.stringify(body), signal: cut.signal };
      const response = await this.#options.fetch(this.#options.url + path, init);
      const after = Number(response.headers.get("Retry-After")) || 0;
      const { status } = response;
      const isJson = /\bjson\b/.test(response.headers.get("Content-Type") ?? "");
      return { status, content: isJson ? await response.json() : null, after };
    } catch {
      return { status: 0, content: null, after: 0 };
    } finally {
      clearTimeout(timer);
    }
  }

  /** Until the time is over, the connection is back, or the client closes. @param {number} ms @returns {Promise<void>} */
  async #pause(ms) {
    const over = new AbortController();
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      const wake = () => resolve(clearTimeout(timer));
      globalThis.addEventListener?.("online", wake, { signal: over.signal });
      this.#closing.signal.addEventListener("abort", wake, { signal: over.signal });
    });
    over.abort();
    this.#closing.signal.throwIfAborted();
  }

  /** @param {string} code */
  #trouble(code) {
    if (this.#state.doing) this.#set({ trouble: this.#notice(code, "info", "wait") });
  }

  /**
   * @param {string} code @param {"info" | "error"} tone @param {string} next @param {string} [message] the API's
   * @returns {Notice}
   */
  #notice(code, tone, next, message) {
    const text = this.#options.messages[code] ?? (message || MESSAGES[code] || UNKNOWN);
    return Object.freeze({ code, message: text, tone, next });
  }

  /** @param {Partial<State>} change */
  #set(change) {
    const entries = /** @type {(keyof State)[]} */ (Object.keys(change));
    if (entries.every((name) => change[name] === this.#state[name])) return;
    this.#state = Object.freeze({ ...this.#state, ...change });
    this.dispatchEvent(new CustomEvent("change", { detail: this.#state }));
  }

  /** @param {Record<string, unknown>} request */
  #tell(request) {
    this.dispatchEvent(new CustomEvent("request", { detail: Object.freeze(request) }));
  }
}

/** What outlives the page: the session's id and the wishes without an answer. In memory where storage is refused. */
class Kept {
  /** @type {Map<string, string>} */
  #memory = new Map();

  /** @param {Required<Options>["storage"]} storage @param {string} name */
  constructor(storage, name) {
    this.storage = storage;
    this.name = name;
  }

  /** @returns {string | null} */
  get sessionId() {
    return addressable(this.#get("session"));
  }

  set sessionId(id) {
    this.#put("session", id);
  }

  /** Those that still count, oldest first. @returns {Wish[]} */
  wishes() {
    const fresh = this.#wishes().filter((wish) => wish.kind === "complete" || Date.now() - wish.at < STALE);
    this.#put("wishes", fresh.length ? JSON.stringify(fresh) : null);
    return fresh;
  }

  /** @param {Wish} wish */
  keep(wish) {
    this.#put("wishes", JSON.stringify([...this.#wishes().filter(({ key }) => key !== wish.key), wish]));
  }

  /** @param {Wish} wish */
  drop(wish) {
    const others = this.#wishes().filter(({ key }) => key !== wish.key);
    this.#put("wishes", others.length ? JSON.stringify(others) : null);
  }

  clear() {
    this.sessionId = null;
    this.#put("wishes", null);
  }

  /** @returns {Wish[]} */
  #wishes() {
    try {
      return JSON.parse(this.#get("wishes") ?? "[]");
    } catch {
      return [];
    }
  }

  /** @param {string} key */
  #get(key) {
    try {
      return this.#memory.get(key) ?? this.storage.getItem(`${this.name}.${key}`);
    } catch {
      return null;
    }
  }

  /** @param {string} key @param {string | null} value */
  #put(key, value) {
    this.#memory.delete(key);
    try {
      if (value === null) this.storage.removeItem(`${this.name}.${key}`);
      else this.storage.setItem(`${this.name}.${key}`, value);
    } catch {
      if (value !== null) this.#memory.set(key, value); // private windows and full disks
    }
  }
}

/** What cannot be part of a path is no id, whatever left it in storage or in a link. @param {string | null} [id] */
const addressable = (id) => (id && /^[^/\\.][^/\\]*$/.test(id) ? id : null);

/** @param {Session} session */
const stands = (session) => session.valid || session.status === "completed";

/** Not `crypto.randomUUID`, which plain HTTP does not have. */
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

/** @returns {Required<Options>["storage"]} */
function defaultStorage() {
  try {
    return globalThis.localStorage;
  } catch {
    return { getItem: () => null, setItem: refuse, removeItem: refuse };
  }
}

function refuse() {
  throw new Error("no storage");
}
