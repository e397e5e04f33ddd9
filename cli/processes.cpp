#include "processes.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "run/memory.h"

namespace hesper::cli {

using nlohmann::json;

int process_rank() {
  const char *world = std::getenv("WORLD_SIZE"), *rank = std::getenv("RANK");
  return world && rank && std::atoi(world) > 1 ? std::atoi(rank) : 0;
}

int local_rank() {
  const char *world = std::getenv("WORLD_SIZE"), *rank = std::getenv("LOCAL_RANK");
  return world && rank && std::atoi(world) > 1 ? std::atoi(rank) : 0;
}

std::unique_ptr<Ranks> meet_ranks(EngineOptions& options) {
  const std::optional<RankPlace> place = rank_place();
  if (!place) return nullptr;
  auto ranks = std::make_unique<Ranks>(*place, options.device, [](const std::string& what) {
    fmt::print(stderr, "hesper: {}; the same command goes on from the last snapshot, on any number of ranks\n", what);
    std::fflush(stderr);
    ::_exit(1);
  });
  const json precision = json::parse(ranks->share(json{
      {"precision", static_cast<int>(options.precision)},
      {"products",
       static_cast<int>(options.products)}}.dump()));
  options.precision = static_cast<at::ScalarType>(precision.at("precision").get<int>());
  options.products = static_cast<Products>(precision.at("products").get<int>());
  if (options.memory_limit == 0) {
    int64_t mine = std::numeric_limits<int64_t>::max();
    for (const at::Device device : options.devices()) mine = std::min(mine, allowed_memory(device));
    options.memory_limit = ranks->least(mine / ranks->on_this_device());
  }
  return ranks;
}

void share_state(Ranks* ranks, Snapshots& snapshots) {
  if (!ranks) return;
  json said = {{"before", snapshots.before.note}};
  if (snapshots.from) {
    const RunState& from = *snapshots.from;
    json& state = said["from"] = {{"plan", from.plan}, {"stage", from.stage}, {"steps", from.steps}};
    for (const auto& [name, tensor] : from.tensors)
      if (name == "done")
        state["done"] =
            std::vector<double>(tensor.const_data_ptr<double>(), tensor.const_data_ptr<double>() + tensor.numel());
  }
  said = json::parse(ranks->share(said.dump()));
  if (ranks->conducts()) return;
  snapshots.before.note = said.at("before");
  if (!said.contains("from")) return;
  const json& state = said["from"];
  RunState& from = snapshots.from.emplace();
  from.plan = state.at("plan"), from.stage = state.at("stage"), from.steps = state.at("steps");
  if (state.contains("done"))
    from.tensors = {{"done", at::tensor(state.at("done").get<std::vector<double>>(), at::kDouble)}};
}

}  // namespace hesper::cli
