#include "run/rank_files.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "report/json_number.h"

namespace hesper {
namespace {

using nlohmann::json;

std::string cell(double value) { return std::isfinite(value) ? fmt::format("{:.9g}", value) : ""; }

json numbers(const at::Tensor& values) {
  json out = json::array();
  for (int64_t k = 0; k < values.numel(); ++k) out.push_back(json_number(values[k].item<double>()));
  return out;
}

std::vector<double> as_numbers(const std::vector<int64_t>& places) {
  std::vector<double> out;
  for (const int64_t place : places) out.push_back(place > 0 ? static_cast<double>(place) : NAN);
  return out;
}

}  // namespace

std::string title_of(const RankColumn& column) {
  static const std::map<std::string, std::string> titles = {
      {"actual", "actual cost"},         {"predicted", "second order"}, {"diagonal", "diagonal of H"},
      {"gauss_newton", "diagonal of G"}, {"fisher", "Fisher"},          {"output_error", "output error"},
      {"weight_error", "weight error"}};
  return titles.at(column.name);
}

std::vector<int64_t> order_of(const RankColumn& column) {
  const std::vector<int64_t> places = column.places();
  std::vector<int64_t> out(places.size(), -1);
  for (size_t k = 0; k < places.size(); ++k)
    if (places[k] > 0) out[static_cast<size_t>(places[k] - 1)] = static_cast<int64_t>(k);
  std::erase(out, -1);
  return out;
}

void write_rank_csv(std::ostream& out, const std::vector<std::string>& names, const std::vector<RankColumn>& ranking) {
  out << "direction";
  std::vector<std::vector<int64_t>> places;
  for (const RankColumn& column : ranking) {
    out << fmt::format(",{0}_place,{0},{0}_error", column.name);
    places.push_back(column.places());
  }
  out << '\n';
  for (const int64_t k : order_of(ranking[0])) {
    const auto i = static_cast<size_t>(k);
    out << names[i];
    for (size_t c = 0; c < ranking.size(); ++c)
      out << ',' << (places[c][i] > 0 ? std::to_string(places[c][i]) : "") << ','
          << cell(ranking[c].mean()[k].item<double>()) << ',' << cell(ranking[c].standard_error()[k].item<double>());
    out << '\n';
  }
}

json rank_json(const std::vector<RankColumn>& ranking) {
  json columns = json::object(), spearman = json::object();
  for (const RankColumn& column : ranking)
    columns[column.name] = {
        {"values", numbers(column.mean())}, {"errors", numbers(column.standard_error())}, {"places", column.places()}};
  for (const size_t with : {0, 1})
    for (const RankColumn& column : ranking) {
      if (column.name == ranking[with].name) continue;
      const RankCorrelation c = rank_correlation(column, ranking[with]);
      spearman[ranking[with].name][column.name] = {
          {"spearman", json_number(c.spearman)}, {"error", json_number(c.error)}, {"directions", c.directions}};
    }
  return {{"spearman", spearman}, {"columns", columns}};
}

ScatterPlot rank_picture(const std::string& title, const std::vector<RankColumn>& ranking) {
  ScatterPlot plot{title, "place by actual cost (1: the costliest)", "place by the other", {}};
  const std::vector<double> actual = as_numbers(ranking[0].places());
  for (size_t c = 1; c < ranking.size(); ++c) {
    const RankCorrelation rho = rank_correlation(ranking[c], ranking[0]);
    if (rho.directions == 0) continue;
    plot.panels.push_back({fmt::format("{}: {:.4f}{}", title_of(ranking[c]), rho.spearman,
                                       std::isfinite(rho.error) ? fmt::format(" \u00b1 {:.1g}", rho.error) : ""),
                           actual, as_numbers(ranking[c].places())});
  }
  return plot;
}

}  // namespace hesper
