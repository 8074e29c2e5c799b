// Learning on one bank's word: adds to a weight or takes from it up to a bound, one weight a clock. The two weights of a
// word of a pair come in two clocks, the low one first; the word is written once.
module nc_lane (
    input  logic        clk,
    input  logic        enable,     // this weight changes
    input  logic        valid,      // an operation is here at all
    input  logic        pair,
    input  logic        half,
    input  logic        last,       // no second half follows
    input  logic        down,       // depression
    input  logic [17:0] word,
    input  logic [ 8:0] dw,         // 256 stands for all that is more
    input  logic [ 7:0] bound,      // one clock after the rest
    input  logic        bus_active,
    input  logic        bus_we,
    input  logic [17:0] bus_wdata,
    // two clocks after
    output logic        we,
    output logic [17:0] wdata
);
  logic signed [9:0] sum;
  logic [7:0] weight, result, held;
  // verilator lint_off UNUSEDSIGNAL
  logic sum_carry;
  // verilator lint_on UNUSEDSIGNAL
  logic [17:8] word1;
  logic enable1, valid1, pair1, half1, last1, down1, held_enable;

  assign weight = half ? word[15:8] : word[7:0];
  always_ff @(posedge clk) begin
    // the bit below the lowest carries the one of the complement in
    {sum, sum_carry} <= {{2{weight[7]}}, weight, 1'b1} + {{1'b0, dw & {9{enable}}} ^ {10{down}}, down};
    word1 <= word[17:8];
    {enable1, valid1, pair1, half1, last1, down1} <= {enable, valid, pair, half, last, down};
  end

  logic signed [9:0] limit;
  logic past;
  assign limit = {{2{bound[7]}}, bound};
  assign past = (sum < limit) == down1;  // at the bound either will do
  assign result = enable1 && past ? bound : sum[7:0];

  always_ff @(posedge clk) begin
    we <= bus_we;
    if (valid1) begin
      held <= result;
      held_enable <= enable1;
      if (!pair1) we <= enable1;
      else if (half1) we <= enable1 || held_enable;
      else we <= enable1 && last1;
    end
    if (bus_active) wdata <= bus_wdata;
    else wdata <= pair1 && half1 ? {word1[17:16], result, held} : {word1, result};
  end
endmodule
