// Many runs of the model, one after the other, while the page stays awake and says how far they are.
import { nextPaint } from "./dom.js";

// results(key, items, work, what) -> Map(item -> work(item)) once all are done, and null until then. Only the latest
// key is worked on. `say` gets a sentence on the way, `done` is called at the end.
export function makeBackground(say, done) {
  let job = { key: null };

  async function run(mine, items, work, what) {
    for (const item of items) {
      say(`${what}: ${mine.results.size + 1} of ${items.length} …`);
      await nextPaint();
      if (job !== mine) return;
      mine.results.set(item, work(item));
    }
    mine.isDone = true;
    done();
  }
  function results(key, items, work, what) {
    if (job.key === key) return job.isDone ? job.results : null;
    job = { key, results: new Map(), isDone: false };
    run(job, items, work, what);
    return null;
  }
  return { results, stop: () => { job = { key: null }; } };
}
