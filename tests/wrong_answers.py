"""Wrong answers to every exercise, as a reader might write them, each with words of the message that names the mistake.

They are written without looking at the wrong functions in checks.py: what counts is that the numbers are the same.
"""

WRONG = {}                # {exercise: [(words of the message, source of the wrong answer)]}


# ---- 00 Start here -------------------------------------------------------------------------------------------


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
