// A block RAM with one write and one read port, read data one clock behind the address.
// A read and a write of one address in the same clock read rubbish: block RAMs differ there, so nobody may depend on it.
module nc_ram #(
    parameter int WIDTH = 18,
    parameter int DEPTH = 1024,
    parameter int AW = $clog2(DEPTH)
) (
    input  logic             clk,
    input  logic             we,
    input  logic [AW-1:0]    waddr,
    input  logic [WIDTH-1:0] wdata,
    input  logic [AW-1:0]    raddr,
    output logic [WIDTH-1:0] rdata
);
  (* ram_style = "block", no_rw_check *) logic [WIDTH-1:0] mem[DEPTH];

`ifndef SYNTHESIS
  // and so not always_ff below: what it writes may have no other writer
  initial for (int i = 0; i < DEPTH; i++) mem[i] = '0;
`endif

  always @(posedge clk) if (we) mem[waddr] <= wdata;

`ifdef SYNTHESIS
  always_ff @(posedge clk) rdata <= mem[raddr];
`else
  always_ff @(posedge clk) rdata <= we && waddr == raddr ? ~mem[raddr] : mem[raddr];
`endif
endmodule
