"""The exercises of lesson 07, for checks.py; README.md in the folder above says how to write one."""
import numpy as np
from checks import Exercise, Sizes, random


def step_flops(config, S):
    heads, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    products = [(config.dim, config.vocab_size)]
    for _ in range(config.n_layers):
        products += [(config.dim, heads), (config.dim, keys), (config.dim, keys), (heads, config.dim)]
        products += [(config.dim, config.hidden_dim), (config.dim, config.hidden_dim), (config.hidden_dim, config.dim)]
        for _ in range(config.n_heads):
            products += [(config.head_dim, S), (S, config.head_dim)]
    return sum(2 * n * m for n, m in products)


def flops_with(two=2, query=None, key=None, ffn=3, attention=2, layers=None, output=1, seen=None, embedding=0):
    """A wrong count: the factor or the size that a reader may get wrong."""
    def wrong(config, S):
        c = config
        q, k = query(c) if query else c.n_heads * c.head_dim, key(c) if key else c.n_kv_heads * c.head_dim
        mix = attention * c.n_heads * (seen(S) if seen else S) * c.head_dim
        one = c.dim * (2 * q + 2 * k + ffn * c.hidden_dim) + mix
        return two * ((c.n_layers if layers is None else layers) * one + (output + embedding) * c.dim * c.vocab_size)
    return wrong


STEP_FLOPS = Exercise(
    step_flops, stars=1, minutes=10,
    inputs=[
        (Sizes(256, 6, 8, 2, 704, 3072, 32), 228), (Sizes(64, 2, 4, 4, 176, 100, 16), 1),
        (Sizes(4096, 32, 32, 32, 11008, 32000, 128), 100), (Sizes(32, 3, 4, 1, 48, 72, 16), 50)],
    hints=[
        "One row goes through every matrix. In which two products does the number of tokens seen before still matter?",
        "A row times an (n, m) matrix is 2 * n * m. The one query meets S keys, and S probabilities meet S values.",
        "2 * n * m for each matrix, scores and mix 2 * H * S * d each; times L layers; plus 2 * D * V."],
    mistakes=[
        ("you counted one operation for each product; the additions count too: 2 * n * m.",
         flops_with(1)),
        ("wk and wv have G heads, not H: they are (D, G * d).",
         flops_with(key=lambda c: c.n_heads * c.head_dim)),
        ("you took D for H * d in wq and wo; the two are the same only where d = D / H.",
         flops_with(query=lambda c: c.dim)),
        ("the feed-forward step has three matrices, not two: gate, up and down.",
         flops_with(ffn=2)),
        ("scores and mix are missing: two products without weights, 2 * H * S * d each.",
         flops_with(attention=0)),
        ("scores and mix are two products; you counted one of them.",
         flops_with(attention=1)),
        ("that is one layer; there are L of them.",
         flops_with(layers=1)),
        ("the logits are missing: a row times the (D, V) output matrix.",
         flops_with(output=0)),
        ("you counted the embedding as a product; it is a lookup, and costs no FLOPs.",
         flops_with(embedding=1)),
        ("that is for all S tokens; the earlier ones are not computed again.",
         lambda config, S: S * step_flops(config, S)),
        ("one new token has one query: its scores grow with S, not with S * S.",
         flops_with(seen=lambda S: S * S)),
        ("the new query meets all S keys, not only its own.",
         flops_with(seen=lambda S: 1)),
    ],
    wrong_answers=[
        ("the additions count too", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return L * (2*D*H*d + 2*D*G*d + 2*H*S*d + 3*D*F) + D*V"""),
        ("have G heads, not H", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(L * (4*D*H*d + 2*H*S*d + 3*D*F) + D*V)"""),
        ("the two are the same only where", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(L * (2*D*D + 2*D*G*d + 2*H*S*d + 3*D*F) + D*V)"""),
        ("three matrices, not two", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(L * (2*D*H*d + 2*D*G*d + 2*H*S*d + 2*D*F) + D*V)"""),
        ("scores and mix are missing", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(L * (2*D*H*d + 2*D*G*d + 3*D*F) + D*V)"""),
        ("you counted one of them", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(L * (2*D*H*d + 2*D*G*d + H*S*d + 3*D*F) + D*V)"""),
        ("that is one layer", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(2*D*H*d + 2*D*G*d + 2*H*S*d + 3*D*F + D*V)"""),
        ("the logits are missing", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*L * (2*D*H*d + 2*D*G*d + 2*H*S*d + 3*D*F)"""),
        ("it is a lookup", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(L * (2*D*H*d + 2*D*G*d + 2*H*S*d + 3*D*F) + 2*D*V)"""),
        ("are not computed again", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*S*(L * (2*D*H*d + 2*D*G*d + 2*H*S*d + 3*D*F) + D*V)"""),
        ("grow with S, not with S * S", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(L * (2*D*H*d + 2*D*G*d + 2*H*S*S*d + 3*D*F) + D*V)"""),
        ("not only its own", """
def step_flops(config, S):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return 2*(L * (2*D*H*d + 2*D*G*d + 2*H*d + 3*D*F) + D*V)"""),
    ])


def settled_at(guesses):
    found = []
    for t in range(guesses.shape[1]):
        i = len(guesses) - 1
        while i > 0 and guesses[i - 1, t] == guesses[-1, t]:
            i -= 1
        found.append(i)
    return np.array(found)


SETTLED_AT = Exercise(
    settled_at, stars=2, minutes=10,
    inputs=[
        (np.array([[7, 1, 5, 3], [2, 1, 4, 3], [7, 1, 5, 2], [9, 1, 5, 3]]),), (np.array([[4, 8, 2]]),),
        (np.array([[3, 1], [5, 1], [3, 1], [3, 2], [3, 1]]),),
        (np.array([[6, 0, 1, 2, 2], [1, 0, 1, 0, 2], [6, 0, 6, 0, 0],
                   [6, 6, 6, 0, 0], [6, 6, 5, 1, 0], [6, 6, 6, 1, 2]]),)],
    hints=[
        "A guess that is right early may change in between. At which end of a column is it safe to begin?",
        "Begin at the last row, the model's answer, and go up: how long does every row agree?",
        "For each column: go up from the last row as long as the guess equals the last; return that row's index."],
    mistakes=[
        ("that is the first depth with the final guess; it may still change its mind in between.",
         lambda guesses: np.argmax(guesses == guesses[-1], axis=0)),
        ("that is the last depth with another guess; it is settled one row later.",
         lambda guesses: settled_at(guesses) - 1),
        ("you counted how many depths have the final guess, not from which one on they all do.",
         lambda guesses: (guesses == guesses[-1]).sum(axis=0)),
        ("you counted how many depths differ from the final guess; one that agrees in between must not help.",
         lambda guesses: (guesses != guesses[-1]).sum(axis=0)),
        ("you counted from the end: how many depths agree in a row. Take that from the number of rows.",
         lambda guesses: len(guesses) - settled_at(guesses)),
        ("you returned the tokens; the depth (row) at which they settle was asked for.",
         lambda guesses: guesses[-1]),
        ("you compared each depth with the first one; the last row is the model's answer.",
         lambda guesses: settled_at(guesses[::-1])),
        ("you looked for the first depth that repeats the one before it; later ones may still differ.",
         lambda guesses: np.array([
             next((i for i in range(1, len(column)) if column[i] == column[i - 1]), len(column) - 1)
             for column in guesses.T])),
        ("that is one depth for all positions; each column has its own.",
         lambda guesses: settled_at(guesses).max()),
    ],
    wrong_answers=[
        ("may still change its mind", """
def settled_at(guesses):
    return np.array([list(column).index(column[-1]) for column in guesses.T])"""),
        ("it is settled one row later", """
def settled_at(guesses):
    differs = guesses != guesses[-1]
    n = len(guesses)
    return np.where(differs.any(0), n - 1 - np.argmax(differs[::-1], axis=0), -1)"""),
        ("not from which one on", """
def settled_at(guesses):
    return np.sum(guesses == guesses[-1:], 0)"""),
        ("how many depths differ", """
def settled_at(guesses):
    return len(guesses) - np.sum(guesses == guesses[-1:], 0)"""),
        ("counted from the end", """
def settled_at(guesses):
    return np.cumprod((guesses == guesses[-1])[::-1], axis=0).sum(0)"""),
        ("you returned the tokens", """
def settled_at(guesses):
    return guesses[guesses.shape[0] - 1].copy()"""),
        ("that is one depth for all", """
def settled_at(guesses):
    i = len(guesses) - 1
    while i and (guesses[i - 1] == guesses[-1]).all():
        i -= 1
    return i"""),
    ])


def head_addends(heads, wo):
    H, T, d = heads.shape
    out = np.zeros((H, T, wo.shape[1]))
    for h in range(H):
        for j in range(d):
            out[h] += np.outer(heads[h, :, j].astype(np.float64), wo[h * d + j])
    return out.astype(np.float32)


def rows_apart(wo, H):                                    # rows h, h + H, h + 2 H, ... for head h
    return wo.reshape(-1, H, wo.shape[1]).swapaxes(0, 1)


HEAD_ADDENDS = Exercise(
    head_addends, stars=2, minutes=10,
    inputs=[
        (random(4, 3, 8), random(32, 16, seed=1)), (random(2, 1, 4, seed=2), random(8, 8, seed=3)),
        (random(1, 5, 6, seed=4), random(6, 10, seed=5)), (random(3, 3, 3, seed=6), random(9, 9, seed=7))],
    hints=[
        "merge_heads puts the heads side by side. Which rows of wo does each head's part meet?",
        "wo has H blocks of d rows, one below the other; a product with side-by-side parts is a sum over the blocks.",
        "Head h meets rows h * d to (h + 1) * d of wo: stack heads[h] @ wo[h * d:(h + 1) * d]."],
    mistakes=[
        ("that is the sum already; return the addends apart, one (T, D) for each head.",
         lambda heads, wo: head_addends(heads, wo).sum(axis=0)),
        ("you gave head h every H-th row of wo; its rows stand together, from h * d to (h + 1) * d.",
         lambda heads, wo: heads @ rows_apart(wo, len(heads))),
        ("every head meets the first d rows of wo; head h has its own, from h * d to (h + 1) * d.",
         lambda heads, wo: heads @ wo[:heads.shape[-1]]),
        ("the heads come second; the shape should be (H, T, D).",
         lambda heads, wo: head_addends(heads, wo).swapaxes(0, 1)),
        ("you shared the sum out equally; each head adds what it computed itself.",
         lambda heads, wo: np.repeat(head_addends(heads, wo).mean(axis=0, keepdims=True), len(heads), axis=0)),
        ("the rows of wo are taken in reverse: head 0 meets the first d rows, not the last.",
         lambda heads, wo: heads @ wo.reshape(len(heads), -1, wo.shape[1])[::-1]),
        ("that is the running sum over the heads; the addends themselves were asked for.",
         lambda heads, wo: np.cumsum(head_addends(heads, wo), axis=0, dtype=np.float32)),
    ],
    wrong_answers=[
        ("that is the sum already", """
def head_addends(heads, wo):
    return nl.merge_heads(heads) @ wo"""),
        ("every H-th row", """
def head_addends(heads, wo):
    H, T, d = heads.shape
    return np.stack([heads[h] @ wo[h::H] for h in range(H)])"""),
        ("every head meets the first d rows", """
def head_addends(heads, wo):
    d = heads.shape[2]
    return np.einsum("htd,dD->htD", heads, wo[:d])"""),
        ("the heads come second", """
def head_addends(heads, wo):
    H, T, d = heads.shape
    return np.einsum("htd,hdD->thD", heads, wo.reshape(H, d, -1))"""),
        ("shared the sum out equally", """
def head_addends(heads, wo):
    out = nl.merge_heads(heads) @ wo
    return np.stack([out / np.float32(len(heads))] * len(heads))"""),
        ("taken in reverse", """
def head_addends(heads, wo):
    H, T, d = heads.shape
    return np.stack([heads[h] @ wo[(H - 1 - h) * d:(H - h) * d] for h in range(H)])"""),
        ("the running sum", """
def head_addends(heads, wo):
    H, T, d = heads.shape
    out, x = [], 0
    for h in range(H):
        x = x + heads[h] @ wo[h * d:(h + 1) * d]
        out.append(x)
    return np.array(out)"""),
    ])


def try_blend(function, name, position, donor, share, passed):
    """What the model would go on with."""
    tap = function(name, position, donor, share)
    return None if tap is None or tap is ... else [tap(at, x) for at, x in passed]


def blend_inputs(name, position, share, shape, seed):
    names = ["embedding", "layers.0.x_attn", "layers.0.x_ffn", "layers.1.x_ffn"]
    donor = {at: random(*shape, seed=seed + i) for i, at in enumerate(names)}
    return name, position, donor, share, [(at, random(*shape, seed=seed + 10 + i)) for i, at in enumerate(names)]


def blend(name, position, donor, share):
    def tap(at, x):
        own, theirs = x.astype(np.float64), donor[at].astype(np.float64)
        row = own[position] + share * (theirs[position] - own[position])
        rows = list(range(len(x)))
        return x if at != name else np.array([row if i == rows[position] else own[i] for i in rows]).astype(np.float32)
    return tap


def blending(change, chosen=lambda at, name: at == name, otherwise=lambda x: x):
    """A wrong blend: change(x, donor's tensor, position, share), at the chosen names."""
    return lambda name, position, donor, share: lambda at, x: (
        change(x.copy(), donor[at], position, share) if chosen(at, name) else otherwise(x))


def put_row(x, position, row):
    x[position] = row
    return x


def mix_row(x, y, position, share):
    return put_row(x, position, (1 - share) * x[position] + share * y[position])


BLEND = Exercise(
    blend, stars=3, minutes=15,
    run=try_blend,
    inputs=[
        blend_inputs("layers.0.x_ffn", 2, 0.25, (4, 6), 0), blend_inputs("layers.1.x_ffn", -1, 1.0, (3, 3), 20),
        blend_inputs("embedding", 0, 0.0, (2, 5), 40), blend_inputs("layers.0.x_attn", 1, 0.7, (5, 5), 60)],
    hints=[
        "`patch` in the lesson is nearly it. What has to change is one line.",
        "The new row is (1 - share) times its own row plus share times the donor's.",
        "Return a function tap(at, x): if at is name, a copy of x with the mixed row; x itself otherwise."],
    mistakes=[
        ("share is the donor's part: 1 takes all from the donor. You gave it to the run's own row.",
         blending(lambda x, y, t, share: mix_row(x, y, t, 1 - share))),
        ("you mixed all rows; only the one at `position` changes.",
         blending(lambda x, y, t, share: (1 - share) * x + share * y)),
        ("you added share of the donor's row on top; the own row keeps only 1 - share.",
         blending(lambda x, y, t, share: put_row(x, t, x[t] + share * y[t]))),
        ("you mixed a column: x[:, position]; a position is a row, x[position].",
         blending(lambda x, y, t, share: (1 - share) * x + share * y if x.ndim < 2 else mix_row(x.T, y.T, t, share).T)),
        ("the whole row is replaced, whatever share says: mix the two.",
         blending(lambda x, y, t, share: put_row(x, t, y[t]))),
        ("every tensor is mixed; only the one called `name` changes.",
         blending(mix_row, lambda at, name: True)),
        ("the tap returns nothing for other names, and the model goes on with None: return x there.",
         blending(mix_row, otherwise=lambda x: None)),
        ("the tap returns the mixed row alone; the model needs the whole tensor, with that row in it.",
         blending(lambda x, y, t, share: mix_row(x, y, t, share)[t])),
        ("nothing changes: the tap returns x as it came.",
         blending(lambda x, y, t, share: x)),
    ],
    wrong_answers=[
        ("share is the donor's part", """
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            x = x.copy()
            x[position] = share * x[position] + (1 - share) * donor[at][position]
        return x
    return tap"""),
        ("you mixed all rows", """
def blend(name, position, donor, share):
    return lambda at, x: x + share * (donor[at] - x) if at == name else x"""),
        ("on top", """
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            x = np.array(x)
            x[position] += share * donor[name][position]
        return x
    return tap"""),
        ("you mixed a column", """
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            x = x.copy()
            x[:, position] = (1 - share) * x[:, position] + share * donor[at][:, position]
        return x
    return tap"""),
        ("the whole row is replaced", """
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            x = x.copy()
            x[position] = donor[at][position]
        return x
    return tap"""),
        ("every tensor is mixed", """
def blend(name, position, donor, share):
    def tap(at, x):
        x = x.copy()
        x[position] = (1 - share) * x[position] + share * donor[at][position]
        return x
    return tap"""),
        ("return x there", """
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            x = x.copy()
            x[position] = (1 - share) * x[position] + share * donor[at][position]
            return x
    return tap"""),
        ("the mixed row alone", """
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            return (1 - share) * x[position] + share * donor[at][position]
        return x
    return tap"""),
        ("changes the arrays", """
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            x[position] = (1 - share) * x[position] + share * donor[at][position]
        return x
    return tap"""),
        ("nothing changes", """
def blend(name, position, donor, share):
    def tap(at, x):
        if at == name:
            y = x.copy()
            y[position] = (1 - share) * y[position] + share * donor[at][position]
        return x
    return tap"""),
    ])
