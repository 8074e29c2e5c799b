// Bytes out of frames: CRC and COBS, in a ring. A frame's code bytes are put in when they are known, behind their time,
// and the line sees the frame when it is whole.
module nc_cobs_tx #(
    parameter int DEPTH = 2048
) (
    input  logic       clk,
    input  logic       rst,
    // bytes of a frame, while `ready`; `close` behind the last
    input  logic       valid,
    input  logic [7:0] data,
    input  logic       close,
    output logic       ready,
    output logic       room,       // for the longest frame
    // bytes of the line
    output logic       out_valid,
    output logic [7:0] out_data,
    input  logic       out_ready,
    output logic       idle
);
  localparam int AW = $clog2(DEPTH);

  logic [AW:0] first, head, place;  // the next byte of the line; behind the last whole frame; of the next byte
  logic [AW-1:0] code;  // of the open code byte
  logic [2:0] closing;  // 0 open; 4 to 1 bytes of the CRC, 5 the code, 6 the delimiter
  // verilator lint_off UNUSEDSIGNAL
  logic [31:0] crc;  // goes out by its lowest byte
  // verilator lint_on UNUSEDSIGNAL
  logic crc_ready, emit, put, loaded;
  logic [7:0] put_byte;
  logic [AW:0] used;

  assign emit = closing != 3'd0 && closing < 3'd5;
  assign ready = crc_ready && closing == 3'd0;
  assign put = crc_ready && (emit || (closing == 3'd0 && valid));
  assign put_byte = emit ? ~crc[7:0] : data;
  // The frame that is being closed has up to 6 bytes to come.
  assign used = place - first;
  assign room = used <= (AW + 1)'(DEPTH - 264);

  nc_crc32 check (
      .clk(clk),
      .clear(rst || closing == 3'd6),
      .valid(put),
      .emit(emit),
      .data(data),
      .ready(crc_ready),
      .value(crc)
  );

  // A zero is not stored: it is the place of the next code, and tells the last one.
  logic we, ends_block, ring_we;
  logic [AW-1:0] ring_addr;
  logic [7:0] ring_data;
  assign ends_block = (put && put_byte == 8'd0) || closing == 3'd5;
  assign we = put || closing == 3'd5 || closing == 3'd6;

  nc_ram #(
      .WIDTH(8),
      .DEPTH(DEPTH)
  ) ring (
      .clk(clk),
      .we(ring_we),
      .waddr(ring_addr),
      .wdata(ring_data),
      .raddr(first[AW-1:0]),
      .rdata(out_data)
  );

  assign out_valid = loaded;
  assign idle = first == head && !loaded && closing == 3'd0;

  always_ff @(posedge clk) begin
    ring_we   <= we && !rst;
    ring_addr <= ends_block ? code : place[AW-1:0];
    ring_data <= ends_block ? place[7:0] - code[7:0] : closing == 3'd6 ? 8'd0 : put_byte;
    if (rst) begin
      first   <= '0;
      head    <= '0;
      code    <= '0;
      place   <= (AW + 1)'(1);
      closing <= 3'd0;
      loaded  <= 1'b0;
    end else begin
      if (put) place <= place + 1'b1;
      if (ends_block) code <= place[AW-1:0];
      if (closing == 3'd0) begin
        if (close) closing <= 3'd4;
      end else if (emit) begin
        if (put) closing <= closing == 3'd1 ? 3'd5 : closing - 3'd1;
      end else if (closing == 3'd5) closing <= 3'd6;
      else begin
        closing <= 3'd0;
        head    <= place + 1'b1;
        code    <= place[AW-1:0] + 1'b1;
        place   <= place + (AW + 1)'(2);
      end
      if (loaded) begin
        if (out_ready) begin
          first  <= first + 1'b1;
          loaded <= 1'b0;
        end
      end else loaded <= first != head;
    end
  end
endmodule
