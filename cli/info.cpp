#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/util/accumulate.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>

#include "checkpoint/checkpoint.h"
#include "commands.h"
#include "console.h"
#include "flags.h"
#include "hub.h"
#include "model/tensor_names.h"
#include "run/device_memory.h"
#include "run/memory.h"
#include "text/parquet.h"
#include "text/tokenizer.h"
#include "values.h"

namespace hesper::cli {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> folders_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.is_directory(error)) names.push_back(entry.path().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A dtype as users of Python know it.
std::string common_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    default:
      return c10::toString(dtype);
  }
}

// "210 Q4_1, 61 float32": how the tensors are stored, the most frequent first.
std::string stored_types(const Checkpoint& checkpoint) {
  std::map<std::string, int64_t> counts;
  for (const std::string& name : checkpoint.names()) {
    const TensorInfo& info = checkpoint.info(name);
    ++counts[info.block_type.empty() ? common_name(info.dtype) : std::string(info.block_type)];
  }
  std::vector<std::pair<int64_t, std::string>> rows;
  rows.reserve(counts.size());
  for (const auto& [type, count] : counts) rows.emplace_back(-count, type);
  std::sort(rows.begin(), rows.end());
  std::vector<std::string> parts;
  parts.reserve(rows.size());
  for (const auto& [count, type] : rows) parts.push_back(fmt::format("{} {}", -count, type));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string describe_tokenizer(const std::string& model) {
  try {
    const auto tokenizer = load_tokenizer(model);
    const auto bos = tokenizer->bos();
    return fmt::format("{}, {} tokens, {}", tokenizer->name(), tokenizer->vocab_size(),
                       bos ? fmt::format("BOS {}", *bos) : "no BOS");
  } catch (const std::runtime_error& error) {
    return fmt::format("none: {}", error.what());
  }
}

// What there is beyond plain causal attention and dense layers; all of it is in the derivatives.
std::vector<std::string> describe_features(const ModelConfig& c) {
  std::vector<std::string> out;
  const auto count = [&](const auto& list) {
    return std::count_if(list.begin(), list.end(), [](auto x) { return x > 0; });
  };
  if (const auto windows = count(c.window); windows > 0)
    out.push_back(fmt::format("attention to the last {} tokens in {} of {} blocks",
                              *std::max_element(c.window.begin(), c.window.end()), windows, c.blocks));
  if (const auto chunked = count(c.chunked); chunked > 0)
    out.push_back(fmt::format("attention inside chunks of {} tokens in {} of {} blocks", c.chunk, chunked, c.blocks));
  if (c.qk_norm) out.emplace_back("normed queries and keys");
  if (c.attention_softcap > 0) out.push_back(fmt::format("scores capped at {:g}", c.attention_softcap));
  if (c.logits_softcap > 0) out.push_back(fmt::format("logits capped at {:g}", c.logits_softcap));
  if (c.rotary_dims > 0 && c.rotary_dims < c.head_dim)
    out.push_back(fmt::format("rotary positions of {} in {} channels of a head", c.rotary_dims, c.head_dim));
  if (c.rope.type != RopeType::standard && c.rope.type != RopeType::divisors) {
    constexpr const char* names[] = {"", "linear", "dynamic", "llama3", "yarn", "longrope"};
    const char* name = names[static_cast<size_t>(c.rope.type)];
    out.push_back(c.rope.type == RopeType::longrope
                      ? fmt::format("rotary scaling {}: other frequencies for windows of more than {} tokens", name,
                                    c.rope.original_max_positions)
                      : fmt::format("rotary scaling {} by {:g}", name, c.rope.factor));
  }
  if (c.rope.type == RopeType::divisors) out.emplace_back("rotary frequencies divided as the file says");
  if (!c.rotary_block.empty())
    out.push_back(fmt::format("rotary positions in {} of {} blocks", count(c.rotary_block), c.blocks));
  if (c.experts > 0)
    out.push_back(fmt::format("{} of {} experts a token in {} of {} blocks", c.experts_per_token, c.experts,
                              count(c.moe), c.blocks));
  if (c.language_part) out.emplace_back("the language part of a multimodal checkpoint alone");
  return out;
}

// What the files say; the weights are not read.
void run_model_info(const Flags& flags) {
  Console console(false, flags.json);
  const std::string& model = flags.model;
  const ModelSource source = find_model("--model", model, flags, ModelPart::all, console);
  const Checkpoint checkpoint = Checkpoint::open(source.path);
  const ModelConfig config = parse_config(checkpoint);
  int64_t weights = 0;
  for (const ParameterSpec& spec : parameter_table(config)) weights += c10::multiply_integers(spec.shape);
  const std::vector<std::string> layers = linear_layers(config);
  const std::vector<std::string> features = describe_features(config);
  const std::string types = stored_types(checkpoint), tokenizer = describe_tokenizer(source.path);
  console.result(fmt::format("model       {} ({}, {})", model, config.model_type, checkpoint.format()));
  if (!source.origin.id.empty()) console.result(fmt::format("commit      {}", source.origin.commit));
  console.result(fmt::format("shape       {} blocks of width {}, {} heads of {}, {} for keys and values; {} positions",
                             config.blocks, config.width, config.heads, config.head_dim, config.kv_heads,
                             config.max_positions));
  console.result(fmt::format("weights     {} in {} tensors ({}); head {}", weights, checkpoint.names().size(), types,
                             config.tied_head ? "tied to the embedding" : "of its own"));
  console.result(fmt::format("tokenizer   {}", tokenizer));
  if (!features.empty()) console.result(fmt::format("with        {}", fmt::join(features, "; ")));
  console.result(fmt::format("--layer     {}", fmt::join(with_experts_joined(layers), ", ")));
  const std::string& commit = source.origin.commit;
  console.event("model", {{"model", model},
                          {"revision", commit.empty() ? nlohmann::json() : nlohmann::json(commit)},
                          {"type", config.model_type},
                          {"format", checkpoint.format()},
                          {"blocks", config.blocks},
                          {"width", config.width},
                          {"heads", config.heads},
                          {"head_dim", config.head_dim},
                          {"kv_heads", config.kv_heads},
                          {"max_positions", config.max_positions},
                          {"weights", weights},
                          {"tensors", checkpoint.names().size()},
                          {"stored", types},
                          {"tied_head", config.tied_head},
                          {"tokenizer", tokenizer},
                          {"features", features},
                          {"layers", layers}});
}

void run_info(bool as_json) {
  Console console(false, as_json);
  const auto row = [&](const char* head, const std::string& text) {
    console.result(fmt::format("{:<12}{}", head, text));
  };
  const std::optional<int> gpus = gpu_count();
  const std::string cuda =
      gpus ? fmt::format("{} device{}", *gpus, *gpus == 1 ? "" : "s") : "not in this build (`make cuda` builds it)";
  const std::string compiler =
#ifdef __clang__
      "clang " __clang_version__;
#else
      "gcc " __VERSION__;
#endif
  const fs::path cache = cache_folder();
  const std::vector<std::string> cached = folders_in(cache);
  row("hesper", HESPER_VERSION);
  row("built with", fmt::format("{}, LibTorch {}", compiler, TORCH_VERSION));
  row("CPU", fmt::format("{} threads, {} kernels", at::get_num_threads(), at::get_cpu_capability()));
  row("CUDA", cuda);
  row("Parquet", reads_parquet() ? "yes (Apache Arrow)" : "no (no pyarrow wheel when it was built)");
  row("memory", fmt::format("{} free", say_bytes(free_memory())));
  row("hub cache", hub_settings(Flags()).cache.string());
  row("cache", cache.string() + (cached.empty() ? " (empty)" : ""));
  for (const std::string& name : cached) row("", name);
  console.event("info", {{"version", HESPER_VERSION},
                         {"compiler", compiler},
                         {"libtorch", TORCH_VERSION},
                         {"threads", at::get_num_threads()},
                         {"cpu", at::get_cpu_capability()},
                         {"cuda", cuda},
                         {"parquet", reads_parquet()},
                         {"free_memory", free_memory()},
                         {"cache", cache.string()},
                         {"cached_models", cached}});
}

}  // namespace

Action add_info(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.add_option("--model", flags->model,
                 "what a model folder, .gguf file or ORG/NAME of the hub holds, not the build");
  add_hub(app, *flags);
  app.add_flag("--json", flags->json, "one JSON object on standard output");
  return [flags](const std::vector<std::string>&) {
    flags->model.empty() ? run_info(flags->json) : run_model_info(*flags);
  };
}

}  // namespace hesper::cli
