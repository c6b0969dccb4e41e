// What explain() says of random numbers of a run, held against the run.

// {count, names, worst: {share, name, ...}}: `each` random numbers of every name, in a run for each list of changes. A
// share is the distance as a share of the tensor's largest number; Infinity where one of the two is infinite.
export function explainMany(page, { tokens, changeLists, each, seed }) {
  const random = page.randomFrom(seed), names = new Set();
  let count = 0, worst = { share: -1 };
  for (const changes of changeLists) {
    const run = page.runModel(tokens, page.model, changes);
    for (const [name, x] of run.trace) {
      const largest = x.data.reduce((max, v) => Number.isFinite(v) ? Math.max(max, Math.abs(v)) : max, 0);
      for (let k = 0; k < each; k++) {
        const index = x.shape.map(n => Math.floor(random() * n)), value = x.data[page.flatIndex(x.shape, index)];
        const share = farthest(page.explain(name, index, run), value, run, name, index, page) / (largest || 1);
        if (!(share <= worst.share)) worst = { share, name, index, value, changes };
        names.add(name);
        count++;
      }
    }
  }
  return { count, names: names.size, worst };
}

// How far the explanation is from the run: its result, what the first change found, the sum of the products shown, and
// the values of all references.
function farthest(explained, value, run, name, index, page) {
  const distances = [[explained.result, value]];
  const touched = (run.touched.get(name) ?? []).map(({ before }) => before.data[page.flatIndex(before.shape, index)]);
  if (explained.right !== undefined && touched.length > 0) distances.push([explained.right, touched[0]]);
  if (explained.products) distances.push([explained.products.reduce((a, b) => a + b, 0), explained.sum]);
  const references = [...(explained.A ?? []), ...(explained.B ?? []), ...explained.steps.map(step => step[2])];
  for (const reference of references.filter(one => one?.name)) {
    const { shape, data } = run.trace.get(reference.name);
    distances.push([reference.value, data[page.flatIndex(shape, reference.index)]]);
  }
  return Math.max(...distances.map(([a, b]) => a === b ? 0 : Number.isNaN(a - b) ? Infinity : Math.abs(a - b)));
}
