// The decay of a trace: x - max(x >> k, 1), and 0 stays 0.
module nc_decay (
    input  logic [7:0] x,
    input  logic [3:0] k,
    output logic [7:0] y
);
  logic [7:0] part;
  assign part = x >> k;
  assign y = x - (part == 8'd0 ? {7'd0, x != 8'd0} : part);
endmodule
