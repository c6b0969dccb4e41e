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


# ---- 04 Attention --------------------------------------------------------------------------------------------


# ---- 05 Grouped-query attention ------------------------------------------------------------------------------


# ---- 06 SwiGLU -----------------------------------------------------------------------------------------------


# ---- 07 The whole forward pass -------------------------------------------------------------------------------


# ---- 08 Decoding and the cache -------------------------------------------------------------------------------


# ---- 09 The objective and sampling ---------------------------------------------------------------------------


# ---- 10 Sizes, data, compute ---------------------------------------------------------------------------------


# ---- 11 Chat -------------------------------------------------------------------------------------------------


# ---- 12 Weights on disk --------------------------------------------------------------------------------------
