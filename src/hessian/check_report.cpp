#include "hessian/check_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "report/json_number.h"

namespace hesper {

bool CheckReport::passed() const {
  return std::all_of(rows.begin(), rows.end(), [](const CheckRow& r) { return r.passed || !r.judged; });
}

std::string to_table(const CheckReport& report) {
  std::string out;
  size_t key = 0, what = 4, against = 7;
  for (const auto& [name, value] : report.header) key = std::max(key, name.size());
  for (const auto& [name, value] : report.header) out += fmt::format("{:<{}}  {}\n", name, key, value);
  for (const CheckRow& r : report.rows) {
    what = std::max(what, r.what.size());
    against = std::max(against, r.against.size());
  }
  const std::string line = std::string(what + against + 34, '-') + "\n";
  out += fmt::format("\n{:<{}}  {:<{}}  {:>8}  {:>8}  {:<6}  {}\n", "what", what, "against", against, "error", "bound",
                     "", "the bound's reason");
  out += line;
  for (const CheckRow& r : report.rows)
    out += fmt::format("{:<{}}  {:<{}}  {:>8.1e}  {:>8}  {:<6}  {}\n", r.what, what, r.against, against, r.error,
                       r.judged ? fmt::format("{:.1e}", r.bound) : "-",
                       !r.judged  ? "-"
                       : r.passed ? "ok"
                                  : "FAILED",
                       r.reason);
  out += line;
  const auto judged = std::count_if(report.rows.begin(), report.rows.end(), [](const CheckRow& r) { return r.judged; });
  const auto failed =
      std::count_if(report.rows.begin(), report.rows.end(), [](const CheckRow& r) { return r.judged && !r.passed; });
  out += fmt::format("{} of {} comparisons hold", judged - failed, judged);
  if (judged < static_cast<int64_t>(report.rows.size()))
    out += fmt::format("; {} rows are shown without a verdict", static_cast<int64_t>(report.rows.size()) - judged);
  out += ".\n";
  for (const std::string& note : report.notes) out += "\n" + note + "\n";
  return out;
}

nlohmann::json to_json(const CheckReport& report) {
  nlohmann::json json = {{"passed", report.passed()}, {"notes", report.notes}, {"rows", nlohmann::json::array()}};
  for (const auto& [name, value] : report.header) json["header"][name] = value;
  for (const CheckRow& r : report.rows)
    json["rows"].push_back({{"what", r.what},
                            {"against", r.against},
                            {"error", json_number(r.error)},
                            {"bound", r.judged ? json_number(r.bound) : nlohmann::json(nullptr)},
                            {"reason", r.reason},
                            {"passed", r.judged ? nlohmann::json(r.passed) : nlohmann::json(nullptr)}});
  return json;
}

}  // namespace hesper
