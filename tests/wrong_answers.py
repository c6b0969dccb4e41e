"""Wrong answers to every exercise, as a reader might write them, each with words of the message that names the mistake.

They are written without looking at the wrong functions in checks.py: what counts is that the numbers are the same.
"""

WRONG = {}                # {exercise: [(words of the message, source of the wrong answer)]}


# ---- 00 Start here -------------------------------------------------------------------------------------------

WRONG["most_likely_next"] = [
    ("you took the first row", """
def most_likely_next(logits):
    return int(logits[0].argmax())"""),
    ("returned the logit itself", """
def most_likely_next(logits):
    return max(logits[-1])"""),
    ("all T rows at once", """
def most_likely_next(logits):
    return logits.argmax()"""),
    ("one id for each of the T rows", """
def most_likely_next(logits):
    return np.array([row.argmax() for row in logits])"""),
    ("down the columns", """
def most_likely_next(logits):
    return logits.argmax(0)"""),
    ("the smallest logit", """
def most_likely_next(logits):
    return np.argsort(logits[-1])[0]"""),
    ("returned the probability", """
def most_likely_next(logits):
    probs = nl.softmax(logits[-1])
    return probs[probs.argmax()]"""),
    ("farthest from 0", """
def most_likely_next(logits):
    return np.argsort(logits[-1] ** 2)[-1]"""),
]
WRONG["keep_only"] = [
    ("the tap returns nothing", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            kept[name] = x
    return kept, tap"""),
    ("only for the names that it keeps", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            kept[name] = x
            return x
    return kept, tap"""),
    ("it keeps every value", """
def keep_only(names):
    trace = nl.Trace()
    return trace, trace"""),
    ("compare whole names", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if [n for n in names if name.startswith(n) or n in name]:
            kept.update({name: x})
        return x
    return kept, tap"""),
    ("it keeps the shapes", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            kept[name] = np.shape(x)
        return x
    return kept, tap"""),
    ("the wrong way round", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            return x
        kept[name] = x
        return x
    return kept, tap"""),
    ("nothing is kept", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        kept = {}
        if name in names:
            kept[name] = x
        return x
    return kept, tap"""),
    ("returns the dictionary", """
def keep_only(names):
    kept = {}
    def tap(name, x):
        if name in names:
            kept[name] = x
        return kept
    return kept, tap"""),
]
WRONG["continue_greedily"] = [
    ("about the prompt again and again", """
def continue_greedily(tokens, n, forward):
    out = []
    for _ in range(n):
        logits = forward(tokens)
        out += [logits[-1].argmax()]
    return out"""),
    ("the prompt is in what you return", """
def continue_greedily(tokens, n, forward):
    for _ in range(n):
        tokens = tokens + [int(forward(tokens)[-1].argmax())]
    return tokens"""),
    ("the first row of the logits", """
def continue_greedily(tokens, n, forward):
    text = list(tokens)
    for _ in range(n):
        text.append(np.argmax(forward(text)[0]))
    return text[len(tokens):]"""),
    ("only the newest token", """
def continue_greedily(tokens, n, forward):
    out, ids = [], tokens
    for _ in range(n):
        ids = [np.argmax(forward(ids)[-1])]
        out += ids
    return out"""),
    ("one token too many", """
def continue_greedily(tokens, n, forward):
    out = [forward(tokens)[-1].argmax()]
    while len(out) <= n:
        out.append(forward(tokens + out)[-1].argmax())
    return out"""),
    ("one token too few", """
def continue_greedily(tokens, n, forward):
    out = []
    for _ in range(1, n):
        out.append(forward(tokens + out)[-1].argmax())
    return out"""),
    ("the least likely token", """
def continue_greedily(tokens, n, forward):
    out = []
    for _ in range(n):
        out.append(np.argsort(forward(tokens + out)[-1])[0])
    return out"""),
    ("in front of the prompt", """
def continue_greedily(tokens, n, forward):
    text = list(tokens)
    for _ in range(n):
        text.insert(0, np.argmax(forward(text)[-1]))
    return text[:n][::-1]"""),
    ("changes the arrays", """
def continue_greedily(tokens, n, forward):
    for _ in range(n):
        tokens.append(int(forward(tokens)[-1].argmax()))
    return tokens[len(tokens) - n:]"""),
    ("each new token needs a run of its own", """
def continue_greedily(tokens, n, forward):
    logits = forward(tokens)
    return [row.argmax() for row in logits][len(logits) - n:] if n else []"""),
]


# ---- 01 Tokens -----------------------------------------------------------------------------------------------

WRONG["byte_pieces"] = [
    ("in decimal", """
def byte_pieces(character):
    return ["<0x" + str(b) + ">" for b in character.encode()]"""),
    ("are capitals here", """
def byte_pieces(character):
    return ["<0x%02x>" % b for b in bytes(character, "utf-8")]"""),
    ("needs its leading zero", """
def byte_pieces(character):
    return ["<" + hex(b).upper().replace("X", "x") + ">" for b in character.encode()]"""),
    ("number in Unicode", """
def byte_pieces(character):
    return ["<0x%02X>" % ord(character)]"""),
    ("UTF-16", """
def byte_pieces(character):
    data = character.encode("utf-16")[2:]
    swapped = [b for i in range(0, len(data), 2) for b in (data[i + 1], data[i])]
    return ["<0x%02X>" % b for b in swapped]"""),
    ("wrong order", """
def byte_pieces(character):
    return ["<0x%02X>" % b for b in reversed(character.encode())]"""),
    ("bytes as numbers", """
def byte_pieces(character):
    return [b for b in character.encode()]"""),
    ("those are token ids", """
def byte_pieces(character):
    return [b + 3 for b in character.encode("utf-8")]"""),
]
WRONG["merge_once"] = [
    ("learned last", """
def merge_once(symbols, scores):
    found = [(scores[a + b], i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in scores]
    if not found:
        return symbols
    i = min(found)[1]
    return symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + 2:]"""),
    ("the leftmost pair that makes a piece", """
def merge_once(symbols, scores):
    for i in range(len(symbols) - 1):
        if symbols[i] + symbols[i + 1] in scores:
            return symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + 2:]
    return symbols"""),
    ("the longest piece", """
def merge_once(symbols, scores):
    pairs = [a + b for a, b in zip(symbols, symbols[1:])]
    known = [p for p in pairs if p in scores]
    if not known:
        return symbols
    i = pairs.index(max(known, key=len))
    return symbols[:i] + [pairs[i]] + symbols[i + 2:]"""),
    ("you joined the rightmost", """
def merge_once(symbols, scores):
    found = [(scores[a + b], i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in scores]
    if not found:
        return symbols
    score, i = max(found)
    return symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + 2:]"""),
    ("every occurrence", """
def merge_once(symbols, scores):
    pairs = [a + b for a, b in zip(symbols, symbols[1:])]
    known = [p for p in pairs if p in scores]
    if not known:
        return symbols
    best, out, i = max(known, key=scores.get), [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and symbols[i] + symbols[i + 1] == best:
            out.append(best)
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out"""),
    ("is still there", """
def merge_once(symbols, scores):
    best = max(range(len(symbols) - 1), default=None,
               key=lambda i: (scores.get(symbols[i] + symbols[i + 1], -np.inf), -i))
    if best is None or symbols[best] + symbols[best + 1] not in scores:
        return symbols
    out = list(symbols)
    out[best] += out[best + 1]
    return out"""),
    ("you lost a symbol", """
def merge_once(symbols, scores):
    best = max(range(len(symbols) - 1), default=None,
               key=lambda i: (scores.get(symbols[i] + symbols[i + 1], -np.inf), -i))
    if best is None or symbols[best] + symbols[best + 1] not in scores:
        return symbols
    return symbols[:best] + [symbols[best] + symbols[best + 1]] + symbols[best + 3:]"""),
    ("climbed the whole ladder", """
def merge_once(symbols, scores):
    while True:
        pairs = [a + b for a, b in zip(symbols, symbols[1:])]
        known = [p for p in pairs if p in scores]
        if not known:
            return symbols
        i = pairs.index(max(known, key=scores.get))
        symbols = symbols[:i] + [pairs[i]] + symbols[i + 2:]"""),
    ("changes the arrays", """
def merge_once(symbols, scores):
    pairs = [a + b for a, b in zip(symbols, symbols[1:])]
    known = [p for p in pairs if p in scores]
    if known:
        i = pairs.index(max(known, key=scores.get))
        symbols[i:i + 2] = [pairs[i]]
    return symbols"""),
]
WRONG["pieces_to_text"] = [
    ("dummy prefix is still there", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", " ").encode()
    return data.decode()"""),
    ("stripped more than", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", " ").encode()
    return data.decode().strip(" ") if b"\\n" in data else data.decode().strip()"""),
    ("all spaces in front", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", " ").encode()
    return data.decode().lstrip(" ")"""),
    ("cut the first character off", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", " ").encode()
    return data.decode()[1:]"""),
    ("a character by its number", """
def pieces_to_text(pieces):
    text = ""
    for p in pieces:
        if p.startswith("<0x"):
            text += chr(int(p[1:-1], 16))
        elif p not in ("<s>", "</s>"):
            text += p.replace("▁", " ")
    return text.removeprefix(" ")"""),
    ("decoded each byte alone", """
def pieces_to_text(pieces):
    text = ""
    for p in pieces:
        if p.startswith("<0x"):
            text += bytes.fromhex(p[3:5]).decode("utf-8", errors="replace")
        elif p not in ("<s>", "</s>"):
            text += p.replace("▁", " ")
    return text[1:] if text.startswith(" ") else text"""),
    ("dropped the byte pieces", """
def pieces_to_text(pieces):
    return "".join(p for p in pieces if not p.startswith("<")).replace("▁", " ").removeprefix(" ") """),
    ("still spelled out", """
def pieces_to_text(pieces):
    text = "".join(p for p in pieces if p not in ("<s>", "</s>")).replace("▁", " ")
    return text[1:] if text[:1] == " " else text"""),
    ("control tokens are silent", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        else:
            data += p.replace("▁", " ").encode()
    return data.decode().removeprefix(" ")"""),
    ("which may say <s> itself", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        data += bytes.fromhex(p[3:5]) if p.startswith("<0x") else p.replace("▁", " ").encode()
    text = data.decode().replace("<s>", "").replace("</s>", "")
    return text[1:] if text.startswith(" ") else text"""),
    ("you left ▁ out", """
def pieces_to_text(pieces):
    data = b""
    for p in pieces:
        if p.startswith("<0x"):
            data += bytes.fromhex(p[3:5])
        elif p not in ("<s>", "</s>"):
            data += p.replace("▁", "").encode()
    return data.decode()"""),
]


# ---- 02 RMSNorm ----------------------------------------------------------------------------------------------

WRONG["rms_norm"] = [
    ("left eps out", """
def rms_norm(x, weight, eps):
    return x / np.sqrt((x ** 2).mean(-1)).reshape(-1, 1) * weight"""),
    ("you added eps to the root", """
def rms_norm(x, weight, eps):
    rms = np.sqrt((x ** 2).mean(-1, keepdims=True))
    return weight * x / (rms + eps)"""),
    ("over all rows at once", """
def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x ** 2) + eps) * weight"""),
    ("down the columns", """
def rms_norm(x, weight, eps):
    return weight * x / np.sqrt(np.mean(x ** 2, axis=0) + eps)"""),
    ("square root is missing", """
def rms_norm(x, weight, eps):
    return weight * x / (np.mean(x ** 2, axis=1)[:, None] + eps)"""),
    ("not their mean", """
def rms_norm(x, weight, eps):
    return weight * x / np.sqrt(np.einsum("td,td->t", x, x)[:, None] + eps)"""),
    ("forgot weight", """
def rms_norm(x, weight, eps):
    return nl.rms_norm(x, np.float32(1), eps)"""),
    ("that is LayerNorm", """
def rms_norm(x, weight, eps):
    var = x.var(-1, keepdims=True)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(var + eps) * weight"""),
    ("type is float64", """
def rms_norm(x, weight, eps):
    return nl.rms_norm(x.astype(np.float64), weight, eps)"""),
    ("changes the arrays", """
def rms_norm(x, weight, eps):
    x /= np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * weight"""),
]
WRONG["fold"] = [
    ("scaled the columns of w", """
def fold(g, w):
    n = w.shape[1]
    return w * np.concatenate([g] * n)[:n]"""),
    ("divided by g", """
def fold(g, w):
    return (w.T / g).T"""),
    ("one row, and the matrix is gone", """
def fold(g, w):
    return np.dot(w.T, g)"""),
    ("g is missing", """
def fold(g, w):
    return w.copy()"""),
]
WRONG["pre_norm_block"] = [
    ("that is post-norm", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = norm_1(attend(x) + x)
    return norm_2(feed(x) + x)"""),
    ("added to the normalised rows", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = norm_1(x)
    x = x + attend(x)
    x = norm_2(x)
    return x + feed(x)"""),
    ("from before attention", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    a, f = attend(norm_1(x)), feed(norm_2(x))
    return x + a + f"""),
    ("left out the residual sums", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = attend(norm_1(x))
    return feed(norm_2(x))"""),
    ("normalised nothing", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = x + attend(x)
    return x + feed(x)"""),
    ("dropped the second sum", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = x + attend(norm_1(x))
    return feed(norm_2(x))"""),
    ("are swapped", """
def pre_norm_block(x, norm_1, attend, norm_2, feed):
    x = x + attend(norm_2(x))
    return x + feed(norm_1(x))"""),
]


# ---- 03 RoPE -------------------------------------------------------------------------------------------------

WRONG["angle_table"] = [
    ("left the 2 out", """
def angle_table(positions, d, theta):
    return np.outer(positions, [theta ** (-i / d) for i in range(d // 2)])"""),
    ("counted twice", """
def angle_table(positions, d, theta):
    i = np.arange(0, d, 2)
    return np.outer(positions, theta ** (-2 * i / d))"""),
    ("exponent is negative", """
def angle_table(positions, d, theta):
    return positions[:, None] * np.power(theta, 2 * np.arange(d // 2) / d)"""),
    ("not d: i runs", """
def angle_table(positions, d, theta):
    return np.array([[p / theta ** (2 * i / d) for i in range(d)] for p in positions])"""),
    ("other way round", """
def angle_table(positions, d, theta):
    return theta ** (-np.arange(0, d, 2) / d)[:, None] * positions"""),
    ("cosines", """
def angle_table(positions, d, theta):
    return nl.rope_cos_sin(positions, d, theta, np.float64)[0]"""),
]
WRONG["turn_halves"] = [
    ("turned backwards", """
def turn_halves(x, angles):
    return nl.rope(x[None], np.cos(angles), -np.sin(angles))[0]"""),
    ("both signs are plus", """
def turn_halves(x, angles):
    n = x.shape[1] // 2
    c, s = np.cos(angles), np.sin(angles)
    return np.hstack([x[:, :n] * c + x[:, n:] * s, x[:, n:] * c + x[:, :n] * s])"""),
    ("neighbours", """
def turn_halves(x, angles):
    pairs = x.reshape(len(x), -1, 2)
    c, s = np.cos(angles), np.sin(angles)
    a, b = pairs[..., 0], pairs[..., 1]
    return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)"""),
    ("overwrote a", """
def turn_halves(x, angles):
    a, b = np.split(x, 2, axis=1)
    c, s = np.cos(angles), np.sin(angles)
    a = a * c - b * s
    b = b * c + a * s
    return np.concatenate([a, b], 1)"""),
    ("swapped", """
def turn_halves(x, angles):
    return nl.rope(x[None], np.sin(angles), np.cos(angles))[0]"""),
    ("interleaved", """
def turn_halves(x, angles):
    a, b = np.split(x, 2, axis=1)
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([a * c - b * s, b * c + a * s], 2).reshape(x.shape)"""),
]
WRONG["meta_to_halves"] = [
    ("for one head", """
def meta_to_halves(w, d):
    return np.vstack([w[::2], w[1::2]])"""),
    ("way back", """
def meta_to_halves(w, d):
    out = []
    for head in np.split(w, len(w) // d):
        for i in range(d // 2):
            out += [head[i], head[i + d // 2]]
    return np.array(out)"""),
    ("reordered the columns", """
def meta_to_halves(w, d):
    return np.hstack([w[:, ::2], w[:, 1::2]])"""),
    ("nothing moved", """
def meta_to_halves(w, d):
    return w.reshape(-1, d // 2, 2, w.shape[1]).reshape(w.shape)"""),
    ("odd rows come second", """
def meta_to_halves(w, d):
    heads = w.reshape(-1, d, w.shape[1])
    return np.concatenate([heads[:, 1::2], heads[:, ::2]], 1).reshape(w.shape)"""),
]


# ---- 04 Attention --------------------------------------------------------------------------------------------

WRONG["stable_softmax"] = [
    ("exp overflows", """
def stable_softmax(x):
    e = np.exp(x)
    return e / np.sum(e, axis=-1, keepdims=True)"""),
    ("softmax of the columns", """
def stable_softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)"""),
    ("whole matrix", """
def stable_softmax(x):
    e = np.exp(x - x.max(axis=-1)[:, None])
    return e / np.sum(e)"""),
    ("each row's own largest", """
def stable_softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum(axis=1)[:, None]"""),
    ("do not sum to 1", """
def stable_softmax(x):
    return np.exp(x - np.max(x, axis=1, keepdims=True))"""),
    ("without exp", """
def stable_softmax(x):
    return (x.T / x.sum(1)).T"""),
]
WRONG["causal_scores"] = [
    ("not divided", """
def causal_scores(q, k):
    return np.where(np.tri(len(q), len(k), len(k) - len(q)) > 0, q @ k.T, -np.inf)"""),
    ("by d, not by its square root", """
def causal_scores(q, k):
    return np.where(np.tri(len(q), len(k), len(k) - len(q)) > 0, q @ k.T / q.shape[1], -np.inf)"""),
    ("mask is missing", """
def causal_scores(q, k):
    return q @ k.T / math.sqrt(q.shape[-1])"""),
    ("not shifted", """
def causal_scores(q, k):
    s = q @ k.T / math.sqrt(q.shape[-1])
    s[np.triu_indices(len(q), 1, len(k))] = -np.inf
    return s"""),
    ("does not see itself", """
def causal_scores(q, k):
    s = q @ k.T / math.sqrt(q.shape[-1])
    return np.where(np.tri(len(q), len(k), len(k) - len(q) - 1) > 0, s, -np.inf)"""),
    ("hidden scores are 0", """
def causal_scores(q, k):
    return np.tril(q @ k.T / math.sqrt(q.shape[-1]), len(k) - len(q))"""),
]
WRONG["one_head"] = [
    ("not divided", """
def one_head(q, k, v):
    s = np.where(np.tri(len(q), len(k), len(k) - len(q)) > 0, q @ k.T, -np.inf)
    return nl.softmax(s) @ v"""),
    ("mask is missing", """
def one_head(q, k, v):
    return nl.softmax(q @ k.T / math.sqrt(q.shape[1])) @ v"""),
    ("masked after the softmax", """
def one_head(q, k, v):
    p = nl.softmax(q @ k.T / math.sqrt(q.shape[1]))
    return np.tril(p, len(k) - len(q)) @ v"""),
    ("not shifted", """
def one_head(q, k, v):
    mask = nl.causal_mask(np.arange(len(q)), len(k))
    return nl.attention(q[None], k[None], v[None], mask)[0]"""),
    ("mixed the keys", """
def one_head(q, k, v):
    mask = nl.causal_mask(np.arange(len(k) - len(q), len(k)), len(k))
    return nl.attention(q[None], k[None], k[None], mask)[0]"""),
    ("swapped", """
def one_head(q, k, v):
    mask = nl.causal_mask(np.arange(len(k) - len(q), len(k)), len(k))
    return nl.attention(q[None], v[None], k[None], mask)[0]"""),
]


# ---- 05 Grouped-query attention ------------------------------------------------------------------------------

WRONG["cache_bytes"] = [
    ("one of the two", """
def cache_bytes(config, tokens, width):
    return config.n_layers * config.n_kv_heads * config.head_dim * tokens * width"""),
    ("the query heads", """
def cache_bytes(config, tokens, width):
    return 2 * config.n_layers * config.n_heads * config.head_dim * tokens * width"""),
    ("you took D", """
def cache_bytes(config, tokens, width):
    return 2 * config.n_layers * config.dim * tokens * width"""),
    ("one layer", """
def cache_bytes(config, tokens, width):
    return 2 * config.n_kv_heads * config.head_dim * tokens * width"""),
    ("counted numbers", """
def cache_bytes(config, tokens, width):
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens"""),
]
WRONG["grouped_scores"] = [
    ("in turns", """
def grouped_scores(q, k):
    return q @ np.tile(k, (len(q) // len(k), 1, 1)).swapaxes(1, 2)"""),
    ("key head 0", """
def grouped_scores(q, k):
    return q @ k[:1].swapaxes(1, 2)"""),
    ("divided by the root", """
def grouped_scores(q, k):
    return q @ np.repeat(k, len(q) // len(k), 0).swapaxes(1, 2) / math.sqrt(q.shape[-1])"""),
    ("keys down", """
def grouped_scores(q, k):
    return np.repeat(k, len(q) // len(k), 0) @ q.swapaxes(1, 2)"""),
    ("shape is still", """
def grouped_scores(q, k):
    H, T, d = q.shape
    return q.reshape(len(k), H // len(k) * T, d) @ k.swapaxes(1, 2)"""),
]
WRONG["mean_pool"] = [
    ("lie apart", """
def mean_pool(wk, d, groups):
    heads = np.split(wk, wk.shape[1] // d, axis=1)
    return np.concatenate([np.mean(heads[g::groups], axis=0) for g in range(groups)], axis=1)"""),
    ("added the heads up", """
def mean_pool(wk, d, groups):
    return wk.reshape(len(wk), groups, -1, d).sum(2).reshape(len(wk), -1)"""),
    ("first head of each group", """
def mean_pool(wk, d, groups):
    n = wk.shape[1] // d
    return np.concatenate([wk[:, h * d:(h + 1) * d] for h in range(0, n, n // groups)], axis=1)"""),
    ("all heads became one", """
def mean_pool(wk, d, groups):
    return np.mean(np.split(wk, wk.shape[1] // d, axis=1), axis=0)"""),
    ("heads side by side", """
def mean_pool(wk, d, groups):
    return wk.reshape(len(wk), groups, -1, d).mean(2)"""),
]


# ---- 06 SwiGLU -----------------------------------------------------------------------------------------------

WRONG["feed_forward_width"] = [
    ("rounded down", """
def feed_forward_width(dim, multiple_of, multiplier):
    f = int(multiplier * int(8 * dim / 3))
    return f - f % multiple_of"""),
    ("to the nearest", """
def feed_forward_width(dim, multiple_of, multiplier):
    return multiple_of * round(int(multiplier * int(8 * dim / 3)) / multiple_of)"""),
    ("that is 4 dim", """
def feed_forward_width(dim, multiple_of, multiplier):
    return math.ceil(int(multiplier * 4 * dim) / multiple_of) * multiple_of"""),
    ("multiplier is missing", """
def feed_forward_width(dim, multiple_of, multiplier):
    return math.ceil(8 * dim // 3 / multiple_of) * multiple_of"""),
    ("rounded first", """
def feed_forward_width(dim, multiple_of, multiplier):
    return int(math.ceil(8 * dim // 3 / multiple_of) * multiple_of * multiplier)"""),
    ("not rounded", """
def feed_forward_width(dim, multiple_of, multiplier):
    return int(multiplier * int(2 * dim * 4 / 3))"""),
]
WRONG["swiglu"] = [
    ("belongs on gate", """
def swiglu(x, gate, up, down):
    return (nl.silu(x @ up) * (x @ gate)) @ down"""),
    ("is on both", """
def swiglu(x, gate, up, down):
    return (nl.silu(x @ up) * nl.silu(x @ gate)) @ down"""),
    ("took the sigmoid", """
def swiglu(x, gate, up, down):
    return ((x @ up) / (1 + np.exp(-(x @ gate)))) @ down"""),
    ("are added", """
def swiglu(x, gate, up, down):
    return (nl.silu(x @ gate) + x @ up) @ down"""),
    ("up is missing", """
def swiglu(x, gate, up, down):
    return nl.silu(x @ gate) @ down"""),
    ("no activation", """
def swiglu(x, gate, up, down):
    return (x @ gate * (x @ up)) @ down"""),
    ("residual sum", """
def swiglu(x, gate, up, down):
    return nl.feed_forward(x, gate, up, down) + x"""),
]
WRONG["neurons_needed"] = [
    ("smallest first", """
def neurons_needed(hidden, share):
    s = np.sort(hidden ** 2, axis=1)
    return (np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1) + 1"""),
    ("not squares", """
def neurons_needed(hidden, share):
    s = -np.sort(-np.abs(hidden), axis=1)
    return (np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1) + 1"""),
    ("one too few", """
def neurons_needed(hidden, share):
    s = -np.sort(-hidden ** 2, axis=1)
    return (np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1)"""),
    ("share of F", """
def neurons_needed(hidden, share):
    s = -np.sort(-hidden ** 2, axis=1)
    return ((np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1) + 1) / hidden.shape[1]"""),
    ("sort them first", """
def neurons_needed(hidden, share):
    s = hidden ** 2
    return (np.cumsum(s, 1) >= share * s.sum(1, keepdims=True)).argmax(1) + 1"""),
]


# ---- 07 The whole forward pass -------------------------------------------------------------------------------

FLOPS = """
def forward_flops(config, T):
    D, F, V, H, G, d, L = (config.dim, config.hidden_dim, config.vocab_size, config.n_heads, config.n_kv_heads,
                           config.head_dim, config.n_layers)
    return """
WRONG["forward_flops"] = [
    ("the additions count too", FLOPS + "L * (T*D*H*d*2 + T*D*G*d*2 + 2*H*T*T*d + 3*T*D*F) + T*D*V"),
    ("have G heads, not H", FLOPS + "L * (8*T*D*H*d + 4*H*T*T*d + 6*T*D*F) + 2*T*D*V"),
    ("you took D for H * d", FLOPS + "L * (4*T*D*D + 4*T*D*G*d + 4*H*T*T*d + 6*T*D*F) + 2*T*D*V"),
    ("three matrices, not two", FLOPS + "2*T*(L * (2*D*H*d + 2*D*G*d + 2*H*T*d + 2*D*F) + D*V)"),
    ("scores and mix are missing", FLOPS + "2*T*(L * (2*D*H*d + 2*D*G*d + 3*D*F) + D*V)"),
    ("you counted one of them", FLOPS + "2*T*(L * (2*D*H*d + 2*D*G*d + H*T*d + 3*D*F) + D*V)"),
    ("that is one layer", FLOPS + "2*T*(2*D*H*d + 2*D*G*d + 2*H*T*d + 3*D*F + D*V)"),
    ("the logits are missing", FLOPS + "2*T*L * (2*D*H*d + 2*D*G*d + 2*H*T*d + 3*D*F)"),
    ("of the last token only", FLOPS + "2*T*L * (2*D*H*d + 2*D*G*d + 2*H*T*d + 3*D*F) + 2*D*V"),
    ("it is a lookup", FLOPS + "2*T*(L * (2*D*H*d + 2*D*G*d + 2*H*T*d + 3*D*F) + 2*D*V)"),
    ("that is for one token", FLOPS + "2*(L * (2*D*H*d + 2*D*G*d + 2*H*d + 3*D*F) + D*V)"),
    ("scores grow with T * T", FLOPS + "2*T*(L * (2*D*H*d + 2*D*G*d + 2*H*d + 3*D*F) + D*V)"),
]
WRONG["settled_at"] = [
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
]
WRONG["head_addends"] = [
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
    ("type is float64", """
def head_addends(heads, wo):
    H, T, d = heads.shape
    out = np.zeros((H, T, wo.shape[1]))
    for h in range(H):
        out[h] = heads[h] @ wo[h * d:(h + 1) * d]
    return out"""),
]
WRONG["blend"] = [
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
]


# ---- 08 Decoding and the cache -------------------------------------------------------------------------------

WRONG["intensity"] = [
    ("comes with each multiplication", """
def intensity(T, n, m, width):
    return T * n * m / (n * m * width)"""),
    ("T rows are missing", """
def intensity(T, n, m, width):
    return 2 * n * m / (n * m * width)"""),
    ("not bytes", """
def intensity(T, n, m, width):
    return 2 * T * n * m / (n * m)"""),
    ("other way round", """
def intensity(T, n, m, width):
    return n * m * width / (2 * T * n * m)"""),
    ("matrix only", """
def intensity(T, n, m, width):
    return 2 * T * n * m / ((T * n + n * m + T * m) * width)"""),
]
WRONG["append"] = [
    ("over the first keys", """
def append(store, length, new):
    T = new.shape[1]
    store[:, :T] = new
    return store[:, :length + T], length + T"""),
    ("whole store", """
def append(store, length, new):
    end = length + new.shape[1]
    store[:, length:end] = new
    return store, end"""),
    ("new keys only", """
def append(store, length, new):
    end = length + new.shape[1]
    store[:, length:end] = new
    return store[:, length:end], end"""),
    ("old one", """
def append(store, length, new):
    store[:, length:length + new.shape[1]] = new
    return store[:, :length + new.shape[1]], length"""),
    ("joined copies", """
def append(store, length, new):
    valid = np.hstack([store[:, :length], new])
    return valid, valid.shape[1]"""),
]
WRONG["decode"] = [
    ("everything goes through again", """
def decode(prompt, n, forward, cache):
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(forward(ids, cache)[-1].argmax()))
    return ids[len(prompt):]"""),
    ("last token went through", """
def decode(prompt, n, forward, cache):
    logits, new = forward(prompt, cache), []
    for _ in range(n):
        token = int(logits[-1].argmax())
        new.append(token)
        logits = forward([token], cache)
    return new"""),
    ("first row", """
def decode(prompt, n, forward, cache):
    new, ids = [], prompt
    for _ in range(n):
        ids = [int(forward(ids, cache)[0].argmax())]
        new += ids
    return new"""),
    ("prompt is in the result", """
def decode(prompt, n, forward, cache):
    out, ids = list(prompt), prompt
    for _ in range(n):
        ids = [int(forward(ids, cache)[-1].argmax())]
        out += ids
    return out"""),
    ("all new tokens go in again", """
def decode(prompt, n, forward, cache):
    new = []
    for _ in range(n):
        new = new + [int(forward(new or prompt, cache)[-1].argmax())]
    return new"""),
]


# ---- 09 The objective and sampling ---------------------------------------------------------------------------

WRONG["bits_per_byte"] = [
    ("nats per byte", """
def bits_per_byte(nats, text):
    return sum(nats) / len(text.encode())"""),
    ("counts characters", """
def bits_per_byte(nats, text):
    return np.sum(nats) / np.log(2) / len(text)"""),
    ("bits per token", """
def bits_per_byte(nats, text):
    return np.mean(nats) / np.log(2)"""),
    ("multiplied by ln 2", """
def bits_per_byte(nats, text):
    return np.sum(nats) * np.log(2) / len(text.encode("utf-8"))"""),
    ("mean of the nats", """
def bits_per_byte(nats, text):
    return np.mean(nats / np.log(2)) / len(text.encode("utf-8"))"""),
]
WRONG["next_token_loss"] = [
    ("not shifted", """
def next_token_loss(logits, tokens):
    return nl.cross_entropy(logits, tokens).mean()"""),
    ("wrong way", """
def next_token_loss(logits, tokens):
    return nl.cross_entropy(logits[1:], tokens[:-1]).mean()"""),
    ("that is the sum", """
def next_token_loss(logits, tokens):
    return nl.cross_entropy(logits[:-1], tokens[1:]).sum()"""),
    ("divided by T", """
def next_token_loss(logits, tokens):
    return nl.cross_entropy(logits[:-1], tokens[1:]).sum() / len(logits)"""),
    ("in bits", """
def next_token_loss(logits, tokens):
    return np.mean(nl.cross_entropy(logits[:-1], tokens[1:]) / np.log(2))"""),
]
WRONG["nucleus"] = [
    ("crosses p is dropped", """
def nucleus(probs, p):
    order = np.argsort(-probs)
    keep = order[np.cumsum(probs[order]) <= p]
    out = np.zeros_like(probs)
    out[keep] = probs[keep]
    return out / out.sum()"""),
    ("does not sum to 1", """
def nucleus(probs, p):
    order = np.argsort(-probs)
    n = np.searchsorted(np.cumsum(probs[order]), min(p, 1 - 1e-12)) + 1
    out = np.zeros_like(probs)
    out[order[:n]] = probs[order[:n]]
    return out"""),
    ("least likely", """
def nucleus(probs, p):
    order = np.argsort(probs)
    before = np.cumsum(probs[order]) - probs[order]
    out = np.zeros_like(probs)
    out[order[before < p]] = probs[order[before < p]]
    return out / out.sum()"""),
    ("one token too many", """
def nucleus(probs, p):
    order = np.argsort(-probs)
    n = min(np.searchsorted(np.cumsum(probs[order]), min(p, 1 - 1e-12)) + 2, len(probs))
    out = np.zeros_like(probs)
    out[order[:n]] = probs[order[:n]]
    return out / out.sum()"""),
    ("did not sort", """
def nucleus(probs, p):
    out = np.where(np.cumsum(probs) - probs < p, probs, 0)
    return out / out.sum()"""),
    ("result is sorted", """
def nucleus(probs, p):
    s = np.sort(probs)[::-1]
    s[np.cumsum(s) - s >= p] = 0
    return s / s.sum()"""),
]


# ---- 10 Sizes, data, compute ---------------------------------------------------------------------------------

WRONG["training_days"] = [
    ("those are seconds", """
def training_days(tokens, gpus, tokens_per_second):
    return tokens / tokens_per_second / gpus"""),
    ("those are hours", """
def training_days(tokens, gpus, tokens_per_second):
    return tokens / (gpus * tokens_per_second) / 3600"""),
    ("those are GPU-days", """
def training_days(tokens, gpus, tokens_per_second):
    return tokens / tokens_per_second / 86400"""),
    ("take less time", """
def training_days(tokens, gpus, tokens_per_second):
    return tokens / tokens_per_second / 86400 * gpus"""),
    ("that is the inverse", """
def training_days(tokens, gpus, tokens_per_second):
    return gpus * tokens_per_second * 24 * 3600 / tokens"""),
]
WRONG["different_tokens"] = [
    ("only above 1", """
def different_tokens(tokens, sources):
    return sum(tokens * s / 100 / e for s, e in sources.values())"""),
    ("epochs are missing", """
def different_tokens(tokens, sources):
    return tokens * sum(s for s, e in sources.values()) / 100"""),
    ("divide by 100", """
def different_tokens(tokens, sources):
    return sum(tokens * s / max(1, e) for s, e in sources.values())"""),
    ("multiplied by the epochs", """
def different_tokens(tokens, sources):
    return sum(tokens * s / 100 * max(1, e) for s, e in sources.values())"""),
    ("each source has its own", """
def different_tokens(tokens, sources):
    epochs = [max(1, e) for s, e in sources.values()]
    return tokens / (sum(epochs) / len(epochs))"""),
]
WRONG["count_parameters"] = [
    ("output is missing", """
def count_parameters(config):
    return sum(nl.parameter_counts(config, tied=True).values())"""),
    ("G heads, not H", """
def count_parameters(config):
    c = config
    return (2 * c.vocab_size + 1) * c.dim + c.n_layers * (4 * c.dim * c.n_heads * c.head_dim + 3 * c.dim * c.hidden_dim + 2 * c.dim)"""),
    ("three matrices, not two", """
def count_parameters(config):
    c = config
    return sum(nl.parameter_counts(c).values()) - c.n_layers * c.dim * c.hidden_dim"""),
    ("all norms are missing", """
def count_parameters(config):
    counts = nl.parameter_counts(config)
    return sum(n for part, n in counts.items() if part != "norms")"""),
    ("last norm", """
def count_parameters(config):
    return sum(nl.parameter_counts(config).values()) - config.dim"""),
    ("that is one layer", """
def count_parameters(config):
    c = config
    layer = 2 * c.dim * (c.n_heads + c.n_kv_heads) * c.head_dim + 3 * c.dim * c.hidden_dim + 2 * c.dim
    return 2 * c.vocab_size * c.dim + layer + c.dim"""),
]


# ---- 11 Chat -------------------------------------------------------------------------------------------------

WRONG["chat_text"] = [
    ("there are two", r"""
def chat_text(system, user):
    sys_part = "<<SYS>>\n" + system + "\n<</SYS>>\n" if system else ""
    return "[INST] " + sys_part + user + " [/INST]" """),
    ("leaves no trace", r"""
def chat_text(system, user):
    return f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{user} [/INST]" """),
    ("not written as text", r"""
def chat_text(system, user):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    return f"<s>[INST] {s}{user} [/INST]" """),
    ("inside [INST]", r"""
def chat_text(system, user):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    return s + "[INST] " + user + " [/INST]" """),
    ("space at the end", r"""
def chat_text(system, user):
    s = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    return f"[INST] {s}{user} [/INST] " """),
    ("after <<SYS>> is missing", r"""
def chat_text(system, user):
    s = f"<<SYS>>{system}\n<</SYS>>\n\n" if system else ""
    return f"[INST] {s}{user} [/INST]" """),
]
WRONG["answer_loss"] = [
    ("one too few", """
def answer_loss(logits, tokens, n_prompt):
    answer = nl.cross_entropy(logits[:-1], tokens[1:])[n_prompt:]
    return answer.mean() if len(answer) else float("nan")"""),
    ("all tokens count", """
def answer_loss(logits, tokens, n_prompt):
    return nl.cross_entropy(logits[:-1], tokens[1:]).mean()"""),
    ("not shifted", """
def answer_loss(logits, tokens, n_prompt):
    return nl.cross_entropy(logits, tokens)[n_prompt:].mean()"""),
    ("that is the sum", """
def answer_loss(logits, tokens, n_prompt):
    return nl.cross_entropy(logits[n_prompt - 1:-1], tokens[n_prompt:]).sum()"""),
    ("divided by all", """
def answer_loss(logits, tokens, n_prompt):
    nats = nl.cross_entropy(logits[:-1], tokens[1:])
    nats[:n_prompt - 1] = 0
    return nats.mean()"""),
]
WRONG["preference_loss"] = [
    ("wrong sign", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, -(chosen - rejected + margin)).mean()"""),
    ("margin is missing", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, rejected - chosen).mean()"""),
    ("are exchanged", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, chosen - rejected + margin).mean()"""),
    ("that is the sum", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, -(chosen - rejected - margin)).sum()"""),
    ("take their mean", """
def preference_loss(chosen, rejected, margin):
    return np.logaddexp(0, -(chosen - rejected - margin))"""),
    ("exp overflows", """
def preference_loss(chosen, rejected, margin):
    return np.log1p(np.exp(rejected + margin - chosen)).mean()"""),
]


# ---- 12 Weights on disk --------------------------------------------------------------------------------------

WRONG["read_header"] = [
    ("is 8 bytes further", """
def read_header(data):
    import json, struct
    n, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + n]), n"""),
    ("where the header begins", """
def read_header(data):
    import json
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + n]), 8"""),
    ("still text", """
def read_header(data):
    n = int.from_bytes(data[:8], "little")
    return data[8:8 + n].decode("utf-8"), 8 + n"""),
    ("still bytes", """
def read_header(data):
    n = int(np.frombuffer(data[:8], "<u8")[0])
    return data[8:8 + n], 8 + n"""),
    ("that is the header alone", """
def read_header(data):
    import json
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + n])"""),
    ("in the wrong order", """
def read_header(data):
    import json
    n = int.from_bytes(data[:8], "little")
    return n + 8, json.loads(data[8:8 + n])"""),
]
WRONG["widen"] = [
    ("as float16", """
def widen(bits):
    return np.frombuffer(bits.tobytes(), np.float16).reshape(bits.shape).astype(np.float32)"""),
    ("for whole numbers", """
def widen(bits):
    return np.float32(bits)"""),
    ("converted the whole number", """
def widen(bits):
    return (bits.astype(np.uint32) * 65536).astype(np.float32)"""),
    ("all were lost", """
def widen(bits):
    shifted = np.left_shift(bits, np.uint16(16))
    return shifted.astype(np.uint32).view(np.float32)"""),
    ("in the lower half", """
def widen(bits):
    return bits.astype("uint32").view("float32")"""),
    ("shifted by 8", """
def widen(bits):
    return np.left_shift(bits, 8, dtype=np.uint32).view(np.float32)"""),
]
WRONG["read_rows"] = [
    ("forgot start", """
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    at = header[name]["data_offsets"][0] + first * columns * 4
    return np.frombuffer(data[at:at + 4 * columns * (last - first)], np.float32).reshape(-1, columns)"""),
    ("the tensor's own offset", """
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    at = start + first * columns * 4
    return np.frombuffer(data[at:at + 4 * columns * (last - first)], np.float32).reshape(-1, columns)"""),
    ("first row; first rows", """
def read_rows(data, header, start, name, first, last):
    rows, columns = header[name]["shape"]
    at = start + header[name]["data_offsets"][0]
    x = np.frombuffer(data[at:at + 4 * rows * columns], np.float32).reshape(rows, columns)
    return x[:last - first]"""),
    ("not first rows", """
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    at = start + header[name]["data_offsets"][0] + first * 4
    return np.frombuffer(data[at:at + 4 * columns * (last - first)], np.float32).reshape(-1, columns)"""),
    ("columns bytes for each row", """
def read_rows(data, header, start, name, first, last):
    columns = header[name]["shape"][1]
    at = start + header[name]["data_offsets"][0] + first * columns
    return np.frombuffer(data[at:at + 4 * columns * (last - first)], np.float32).reshape(-1, columns)"""),
    ("that is the whole tensor", """
def read_rows(data, header, start, name, first, last):
    a, b = header[name]["data_offsets"]
    return np.frombuffer(data[start + a:start + b], np.float32).reshape(header[name]["shape"])"""),
    ("last itself is not included", """
def read_rows(data, header, start, name, first, last):
    a, b = header[name]["data_offsets"]
    return np.frombuffer(data[start + a:start + b], np.float32).reshape(header[name]["shape"])[first:last + 1]"""),
    ("those are columns", """
def read_rows(data, header, start, name, first, last):
    a, b = header[name]["data_offsets"]
    return np.frombuffer(data[start + a:start + b], np.float32).reshape(header[name]["shape"])[:, first:last]"""),
]
WRONG["to_bfloat16"] = [
    ("cut the lower half", """
def to_bfloat16(x):
    return (x.view(np.uint32) >> 16).astype(np.uint16)"""),
    ("a tie goes up", """
def to_bfloat16(x):
    return ((x.view(np.uint32) + 32768) // 65536).astype(np.uint16)"""),
    ("a tie always goes down", """
def to_bfloat16(x):
    bits = x.view(np.uint32)
    upper, lower = bits >> 16, bits & 0xFFFF
    return (upper + (lower > 0x8000)).astype(np.uint16)"""),
    ("to the odd side", """
def to_bfloat16(x):
    bits = x.view(np.uint32)
    upper, lower = bits >> 16, bits & 0xFFFF
    up = (lower > 0x8000) | ((lower == 0x8000) & (upper % 2 == 0))
    return (upper + up).astype(np.uint16)"""),
    ("bits of float16", """
def to_bfloat16(x):
    return np.float16(x).view(np.uint16)"""),
    ("the lower half, the end", """
def to_bfloat16(x):
    return (x.view(np.uint32) & 0xFFFF).astype(np.uint16)"""),
    ("their 16 bits, as uint16", """
def to_bfloat16(x):
    import ml_dtypes
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)"""),
]
