// What learning adds to weights, for all lanes alike, and from which weight on the bound counts: min(w + dw, bound) is the
// bound where w > bound - dw, max(w - dw, bound) where w < bound + dw.
module nc_change (
    input  logic       clk,
    input  logic       down,          // depression
    input  logic [8:0] dw,            // 256 stands for all that is more
    input  logic [7:0] bound,
    // one clock after
    output logic [7:0] addend,        // dw, or -dw
    output logic       always_below,  // every weight is below bound - addend
    output logic [7:0] limit,         // bound - addend with its sign inverted, 0 where every weight is above
    output logic [7:0] late_bound     // two clocks after
);
  logic signed [9:0] from;
  logic [7:0] bound1;
  assign from = {{2{bound[7]}}, bound} + ({1'b0, dw} ^ {10{!down}}) + {9'd0, !down};
  always_ff @(posedge clk) begin
    addend <= (dw[7:0] ^ {8{down}}) + {7'd0, down};
    always_below <= from > 10'sd127;
    limit <= from < -10'sd128 ? 8'd0 : {!from[7], from[6:0]};
    {late_bound, bound1} <= {bound1, bound};
  end
endmodule
