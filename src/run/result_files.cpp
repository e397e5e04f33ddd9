#include "run/result_files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <span>
#include <stdexcept>

#include "files/atomic_file.h"
#include "files/digest.h"

namespace hesper {

namespace fs = std::filesystem;
using nlohmann::json;

RunRecord new_record(const RunJob& job, const RunOutcome& outcome, json configuration) {
  RunRecord record;
  record.version = HESPER_VERSION;
  record.command_line = job.command_line;
  const auto said = [](const std::string& text) { return text.empty() ? std::nullopt : std::optional(text); };
  record.model = {job.model_name, said(job.model_origin.id), said(job.model_origin.commit), job.model_sha256};
  record.data = {
      job.data_name,           said(job.data_origin.id), said(job.data_origin.commit), ids_sha256(job.windows.ids),
      job.windows.ids.size(0), job.windows.ids.size(1)};
  record.configuration = std::move(configuration);
  record.loss = outcome.loss;
  record.perplexity = std::exp(outcome.loss);
  record.products = outcome.products;
  record.seconds = outcome.seconds;
  record.device = outcome.device;
  record.precision = outcome.precision;
  record.peak_memory = outcome.peak_memory;
  record.errors.precision = outcome.precision_error;
  return record;
}

fs::path with_extension(const fs::path& base, const char* extension) { return base.string() + extension; }

std::string selection_sha256(const ResolvedSelection& selection) {
  Sha256 digest;
  for (size_t i = 0; i < selection.tensors.size(); ++i) {
    const SelectedPart& part = selection.selection.parts()[i];
    const std::string head = fmt::format("{}{}\n", selection.tensors[i].name, part.whole ? " whole" : "");
    digest.update(std::as_bytes(std::span(head)));
    if (part.whole) continue;  // no index a weight: there may be billions
    const at::Tensor flat = part.flat.to(at::kCPU, at::kLong).contiguous();
    digest.update(std::as_bytes(std::span(flat.const_data_ptr<int64_t>(), static_cast<size_t>(flat.numel()))));
  }
  return digest.hex();
}

void check_writable(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw std::runtime_error(fmt::format("cannot write {}: {}", folder.string(), error.message()));
  std::string probe = (folder / ".hesper-XXXXXX").string();
  const int file = ::mkstemp(probe.data());
  if (file < 0) throw std::runtime_error(fmt::format("cannot write {}: {}", folder.string(), std::strerror(errno)));
  ::close(file);
  ::unlink(probe.c_str());
}

// model_input_bs: windows of a primal pass; tangent passes take them one at a time.
json plan_json(const Plan& plan) {
  return {{"pass", to_string(plan.pass)}, {"directions", plan.directions}, {"recompute", plan.recompute},
          {"streamed", plan.streamed},    {"spilled", plan.spilled},       {"model_input_bs", plan.batch},
          {"units", plan.units},          {"planned_memory", plan.peak()}, {"memory_limit", plan.limit}};
}

void write_json(const fs::path& path, const json& json) {
  const std::string text = json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  write_file_atomically(path, [&](std::ostream& stream) { stream << text; });
}

}  // namespace hesper
