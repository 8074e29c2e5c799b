// Registers beside what they are for: what comes from far away takes a clock to get here. Each is kept, though others hold
// the same.
module nc_near #(
    parameter int WIDTH = 1
) (
    input  logic             clk,
    input  logic [WIDTH-1:0] d,
    output logic [WIDTH-1:0] q
);
  (* keep *) always_ff @(posedge clk) q <= d;
endmodule
