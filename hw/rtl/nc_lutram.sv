// A small RAM in look-up tables: one write port, one read port without a clock.
module nc_lutram #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16,
    parameter int AW = $clog2(DEPTH)
) (
    input  logic             clk,
    input  logic             we,
    input  logic [AW-1:0]    waddr,
    input  logic [WIDTH-1:0] wdata,
    input  logic [AW-1:0]    raddr,
    output logic [WIDTH-1:0] rdata
);
  (* ram_style = "distributed", no_rw_check *) logic [WIDTH-1:0] mem[DEPTH];

`ifndef SYNTHESIS
  // and so not always_ff below: what it writes may have no other writer
  initial for (int i = 0; i < DEPTH; i++) mem[i] = '0;
`endif

  always @(posedge clk) if (we) mem[waddr] <= wdata;
  assign rdata = mem[raddr];
endmodule
