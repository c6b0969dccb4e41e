// What each tensor is, in a sentence or two for someone who is new to it. The paper's words come from the README.
import { split } from "./names.js";

const WORDS = {
  embedding: "Each token is looked up in a table: it becomes a row of D numbers. The residual stream starts here.",
  attn_norm: "Each row brought to the same size, then every column scaled by a weight. Attention reads this copy.",
  "attn.q": "What each token asks for, once per query head. Row t of head h is compared with the keys of its group.",
  "attn.k": "What each token offers to be found by. Several query heads share one key head.",
  "attn.v": "What a token hands over when it is attended to.",
  "attn.q_rope": "The queries again, each pair of columns turned by an angle that grows with the position.",
  "attn.k_rope": "The keys again, turned in the same way: query times key depends on how far apart the tokens are.",
  "attn.scores": "How well each query (row) matches each key (column). Keys in the future are masked.",
  "attn.probs": "How each token (row) spreads its attention over the tokens before it (columns). A row sums to 1.",
  "attn.heads": "For each head, the average of the values, weighted by its row of attention.",
  "attn.out": "All heads side by side, mixed by one matrix: what attention writes into the residual stream.",
  x_attn: "The residual stream: what came in, plus what attention wrote.",
  ffn_norm: "The stream brought to the same size once more. The feed-forward step reads this copy.",
  "ffn.gate": "One number for each neuron: how far its gate opens.",
  "ffn.silu": "The gate after its curve: close to 0 where the gate is shut, the number itself where it is open.",
  "ffn.up": "One number for each neuron: what goes through the gate.",
  "ffn.hidden": "Gate times content: what each neuron lets through.",
  "ffn.out": "All neurons mixed by one matrix: what the feed-forward step writes into the residual stream.",
  x_ffn: "The residual stream after this layer: what comes next reads it.",
  norm: "The stream after the last layer, brought to the same size. It is compared with every token of the vocabulary.",
  logits: "One score for each token that could come next. Shown are the 64 likeliest for the chosen row.",
};

export const plainWords = name => WORDS[split(name).short];
