#pragma once

#include <string>

namespace hesper {

// Names of the tensors of a LLaMA model in GGUF files and in Hugging Face's checkpoints, weights and biases:
// "blk.3.attn_q.weight" <-> "model.layers.3.self_attn.q_proj.weight". A name that neither scheme has stays as it is.
std::string hugging_face_name(const std::string& gguf);
std::string gguf_name(const std::string& hugging_face);

}  // namespace hesper
