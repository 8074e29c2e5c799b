// nc_lane: learning is min(w + dw, bound) or max(w - dw, bound) of the specification for every weight, dw and bound, and
// no other bit of the word changes.
module lane (
    input logic        clk,
    input logic        enable,
    input logic        pair,
    input logic        half,
    input logic        down,
    input logic [17:0] word,
    input logic [ 8:0] dw,
    input logic [ 7:0] bound
);
  // The word of a pair comes twice: the low weight, then the high one.
  logic [4:0] age = '0;
  always @(posedge clk) if (age != 5'd31) age <= age + 5'd1;

  logic we;
  logic [17:0] wdata;
  nc_lane dut (
      .clk,
      .enable,
      .valid     (1'b1),
      .pair,
      .half,
      .last      (1'b0),
      .down,
      .word,
      .dw,
      .bound,
      .bus_active(1'b0),
      .bus_we    (1'b0),
      .bus_wdata (18'd0),
      .we,
      .wdata
  );

  function automatic logic [7:0] learned(input logic [7:0] weight, input logic [8:0] change, input logic [7:0] limit,
                                         input logic minus);
    logic signed [16:0] w, l, s;
    w = $signed(weight);
    l = $signed(limit);
    s = minus ? w - $signed({8'd0, change}) : w + $signed({8'd0, change});
    learned = (minus ? s < l : s > l) ? limit : s[7:0];
  endfunction

  // stages behind the inputs: 1 is where `bound` comes, 2 where the word is written
  logic enable1, enable2, pair1, pair2, half1, half2, down1, down2, enable3;
  logic [17:0] word1, word2;
  logic [8:0] dw1, dw2, dw3;
  logic [7:0] bound2, bound3, weight2, weight3;
  logic down3;
  always @(posedge clk) begin
    {enable1, pair1, half1, down1, word1, dw1} <= {enable, pair, half, down, word, dw};
    {enable2, pair2, half2, down2, word2, dw2, bound2} <= {enable1, pair1, half1, down1, word1, dw1, bound};
    {enable3, weight3, dw3, bound3, down3} <= {enable2, word2[7:0], dw2, bound2, down2};
    assume (!half || pair);
    assume (half == (pair1 && !half1) || age == 5'd0);
    assume (!half || (pair && word == word1 && down == down1) || age == 5'd0);
    assume (!enable || dw != 9'd0);
    assume (dw <= 9'd256);

    if (age >= 5'd4) begin
      if (!pair2) begin
        single_written : assert (we == enable2);
        single : assert (!we || wdata == {word2[17:8], learned(word2[7:0], dw2, bound2, down2)});
      end else if (half2) begin
        pair_written : assert (we == (enable2 || enable3));
        high : assert (!we || wdata[17:8] == {word2[17:16], enable2 ? learned(word2[15:8], dw2, bound2, down2) : word2[15:8]});
        low : assert (!we || wdata[7:0] == (enable3 ? learned(weight3, dw3, bound3, down3) : weight3));
      end else nothing_yet : assert (!we);
      stopped_above : cover (!pair2 && we && !down2 && wdata[7:0] == bound2 && word2[7:0] != bound2 && dw2 > 9'd3);
      stopped_below : cover (!pair2 && we && down2 && wdata[7:0] == 8'h80 && word2[7:0] != 8'h80);
      both_halves : cover (pair2 && half2 && enable2 && enable3 && wdata[15:0] != word2[15:0]);
    end
  end
endmodule
