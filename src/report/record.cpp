#include "report/record.h"

#include <utility>

#include "files/atomic_file.h"
#include "report/json_number.h"

namespace hesper {
namespace {

using nlohmann::json;

template <typename T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json selection_json(const RunRecord::Selected& selected) {
  std::vector<std::pair<int64_t, int64_t>> ranges;  // [begin, end)
  for (const int64_t index : selected.indices) {
    if (!ranges.empty() && ranges.back().second == index) {
      ++ranges.back().second;
    } else {
      ranges.emplace_back(index, index + 1);
    }
  }
  json out = {{"tensor", selected.tensor}, {"shape", selected.shape}, {"count", selected.indices.size()}};
  if (2 * ranges.size() < selected.indices.size()) {
    out["ranges"] = ranges;
  } else {
    out["indices"] = selected.indices;
  }
  return out;
}

}  // namespace

json to_json(const Spectrum& s) {
  return {{"n", s.n},
          {"largest_eigenvalue", json_number(s.largest)},
          {"smallest_eigenvalue", json_number(s.smallest)},
          {"negative_share", json_number(s.negative_share)},
          {"negative_diagonal", s.negative_diagonal},
          {"negative_diagonal_share", json_number(s.negative_diagonal_share)},
          {"effective_rank", json_number(s.effective_rank)}};
}

json to_json(const RunRecord& record) {
  json selection = json::array();
  for (const RunRecord::Selected& selected : record.selection) selection.push_back(selection_json(selected));
  return {{"version", record.version},
          {"command_line", record.command_line},
          {"model",
           {{"name", record.model.name},
            {"hub_id", or_null(record.model.hub_id)},
            {"revision", or_null(record.model.revision)},
            {"sha256", record.model.sha256}}},
          {"data",
           {{"name", record.data.name},
            {"hub_id", or_null(record.data.hub_id)},
            {"revision", or_null(record.data.revision)},
            {"sha256", record.data.sha256},
            {"windows", record.data.windows},
            {"seqlen", record.data.seqlen}}},
          {"selection", selection},
          {"configuration", record.configuration},
          {"loss", json_number(record.loss)},
          {"perplexity", json_number(record.perplexity)},
          {"gradient_norm", json_number(record.gradient_norm)},
          {"products", or_null(record.products)},
          {"seconds", json_number(record.seconds)},
          {"device", record.device},
          {"precision", record.precision},
          {"peak_memory", or_null(record.peak_memory)},
          {"errors",
           {{"symmetry", json_number(record.errors.symmetry)},
            {"precision", json_number(record.errors.precision)},
            {"probe", json_number(record.errors.probe)},
            {"data", json_number(record.errors.data)}}},
          {"spectrum", record.spectrum ? to_json(*record.spectrum) : json(nullptr)}};
}

void write_record(const std::filesystem::path& path, const RunRecord& record) {
  // Bytes that are not UTF-8 (a path on the command line) become U+FFFD.
  const std::string text = to_json(record).dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  write_file_atomically(path, [&](std::ostream& out) { out << text; });
}

}  // namespace hesper
