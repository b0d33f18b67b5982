// SPDX-License-Identifier: Apache-2.0
#include "models/widths.h"

#include <doctest/doctest.h>

#include "models/presets.h"
#include "tests/support/expect_error.h"

namespace terrace {
namespace {

using Widths = std::vector<std::uint32_t>;

void refused(const ModelConfig& config, const Widths& widths, const std::string& message) {
  test::expect_error(ErrorCode::kBadArgument, message, [&] { check_widths(config, widths); });
}

TEST_CASE("Widths are one number or one per block, trained ones, and multiples of the layer's step") {
  ModelConfig config = preset_config("lm-default", false);  // 6 blocks of 4608 units, controller blocks of 32
  config.decoder.ff.widths = {1152, 4608};
  check_widths(config, Widths{1152});
  check_widths(config, Widths{1152, 4608, 1152, 4608, 4608, 4608});
  refused(config, {1152, 4608}, "one width or one per block (6) is needed, found 2");
  refused(config, {2304}, "block 0: a width of 2304 units is untrained; it takes 1152, 4608");
  refused(config, {1000}, "block 0: a width of 1000 units is impossible");
  refused(config, {}, "found 0");
  check_widths(config, Widths{2304}, /*allow_untrained=*/true);
  CHECK(nested_widths(config) == Widths{1152, 4608});
  config.decoder.ff.widths.clear();
  refused(config, {1152}, "untrained; it takes 4608 only");
  CHECK(nested_widths(config) == Widths{4608});
}

TEST_CASE("A width of experts is any number of them") {
  ModelConfig config = preset_config("lm-default", true);  // 2048 units
  config.decoder.ff.kind = FeedForwardConfig::Kind::kExperts;
  config.decoder.ff.n_experts = 16;
  config.decoder.ff.n_active = 3;
  check_widths(config, Widths{5 * 128});
  refused(config, {100}, "impossible; it takes multiples of 128 up to 2048");
  CHECK(nested_widths(config) == Widths{128, 256, 384, 512, 1024, 2048});
}

}  // namespace
}  // namespace terrace
