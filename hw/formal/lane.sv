// nc_change and nc_lane: learning is min(w + dw, bound) or max(w - dw, bound) of the specification for every weight, dw and
// bound, and the other bit of the byte stays.
module lane (
    input logic       clk,
    input logic       down,
    input logic [8:0] data,
    input logic [8:0] dw,
    input logic [7:0] bound
);
  logic [2:0] age = '0;
  always @(posedge clk) if (age != 3'd7) age <= age + 3'd1;

  logic [8:0] data1, data2, data3, dw1, dw2, dw3, wdata;
  logic [7:0] addend, limit, late_bound, bound1, bound2, bound3, right;
  logic always_below, down1;
  nc_change change (.clk, .down, .dw, .bound, .addend, .always_below, .limit, .late_bound);
  nc_lane dut (
      .clk,
      .down,
      .data(data1),
      .addend,
      .always_below,
      .limit,
      .bound(late_bound),
      .bus_we(1'b0),
      .bus_data(9'd0),
      .wdata
  );

  function automatic logic [7:0] learned(input logic [7:0] weight, input logic [8:0] change, input logic [7:0] most,
                                         input logic minus);
    logic signed [16:0] w, l, s;
    w = $signed(weight);
    l = $signed(most);
    s = minus ? w - $signed({8'd0, change}) : w + $signed({8'd0, change});
    learned = (minus ? s < l : s > l) ? most : s[7:0];
  endfunction

  assign right = learned(data3[7:0], dw3, bound3, down);
  always @(posedge clk) begin
    {data3, data2, data1} <= {data2, data1, data};
    {dw3, dw2, dw1} <= {dw2, dw1, dw};
    {bound3, bound2, bound1} <= {bound2, bound1, bound};
    down1 <= down;
    assume (dw != 9'd0 && dw <= 9'd256);
    assume (down == down1 || age == 3'd0);  // of a phase
    if (age >= 3'd4) begin
      weight : assert (wdata[7:0] == right);
      other : assert (wdata[8] == data3[8]);
      stopped_above : cover (!down && wdata[7:0] == bound3 && data3[7:0] != bound3 && dw3 > 9'd3);
      stopped_below : cover (down && wdata[7:0] == 8'h80 && data3[7:0] != 8'h80);
      not_stopped : cover (wdata[7:0] != bound3 && wdata[7:0] != data3[7:0]);
    end
  end
endmodule
