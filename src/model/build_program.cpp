#include "model/build_program.h"

#include "model/tensor_names.h"

namespace hesper {

AttentionShape attention_shape(const ModelConfig& c, int64_t block) {
  const auto i = static_cast<size_t>(block);
  AttentionShape shape{c.heads, c.kv_heads, c.head_dim, c.attention_scale, c.window[i], 0, c.attention_softcap};
  if (c.scale_by_block) shape.scale /= static_cast<double>(block + 1);
  if (!c.chunked.empty() && c.chunked[i]) shape.chunk = c.chunk;
  return shape;
}

Program build_program(const ModelConfig& config, int64_t seqlen, at::ArrayRef<at::Device> devices, bool absent) {
  std::vector<std::string> names;
  std::vector<int64_t> sizes;
  for (const ParameterSpec& spec : parameter_table(config)) {
    names.push_back(spec.name);
    sizes.push_back(c10::multiply_integers(spec.shape));
  }
  Program program(std::move(names));
  switch (config.family) {
    case Family::opt:
      write_opt(program, config);
      break;
    case Family::gpt2:
      write_gpt2(program, config);
      break;
    case Family::gpt_neox:
      write_gpt_neox(program, config, seqlen);
      break;
    case Family::llama:
      write_llama(program, config, seqlen);
      break;
    case Family::gemma:
      write_gemma(program, config, seqlen);
      break;
    case Family::llama4:
      write_llama4(program, config, seqlen);
      break;
  }
  program.place(devices, sizes, absent);
  return program;
}

}  // namespace hesper
