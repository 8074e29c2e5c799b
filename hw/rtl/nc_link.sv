// The command engine: takes requests one by one, does them on the mesh, replies (docs/link.md).
//
// A request's bytes are shifted into `arg`; items and records are shifted out of it. WRITE and INJECT go over their
// payload twice: once to check it, then to do it, so that a request is done as a whole or not at all.
module nc_link #(
    parameter int N = 1024,
    parameter int A = 2048,
    parameter int W = 65536,
    parameter int TYPES = 16,
    parameter int GEOMS = 16,
    parameter int X = 1,
    parameter int Y = 1,
    parameter int CREDIT = 2048,
    parameter int LOG = 1024,
    parameter logic [31:0] CLOCK = 32'd0,
    parameter logic [31:0] RATE = 32'd0,
    parameter logic [63:0] BUILD = 64'd0
) (
    input  logic        clk,
    input  logic        rst,
    // requests, from nc_cobs_rx
    input  logic        frame,
    output logic [ 7:0] index,
    input  logic [ 7:0] value,
    output logic        drop,
    output logic [ 7:0] length,
    input  logic        bad,
    // replies, to nc_cobs_tx
    output logic        put,
    output logic [ 7:0] put_data,
    output logic        close,
    input  logic        put_ready,
    input  logic        room,
    output logic        at_work,
    // the rate
    output logic        change,
    output logic [19:0] wanted,
    // the event log
    output logic        log_clear,
    output logic        log_discard,
    input  logic [15:0] log_written,
    input  logic [15:0] log_acked,
    input  logic        log_full,
    input  logic        log_nearly,
    output logic        log_ack,
    output logic [15:0] log_index,  // of the record to acknowledge before, or to read
    input  logic        log_within,
    input  logic [31:0] log_value,
    // the mesh
    output logic        bus_valid,
    output logic        bus_write,
    output logic [ 1:0] bus_core,
    output logic [ 3:0] bus_mem,
    output logic [15:0] bus_addr,
    output logic [39:0] bus_wdata,
    input  logic        bus_ready,
    input  logic        bus_rvalid,
    input  logic [39:0] bus_rdata,
    output logic        step,
    output logic        restart,
    input  logic        busy,
    input  logic [31:0] step_count,
    output logic        inj_valid,
    output logic [ 1:0] inj_core,
    output logic [10:0] inj_axon,
    output logic [ 3:0] inj_slot,
    input  logic        inj_ready
);
  localparam int SLICE = 18;  // log2 of the clocks after which RUN replies in any case
  localparam logic [7:0] FULL = 8'd244;  // a reply of more bytes than this gets no further item or record

  localparam logic [7:0] HELLO = 8'd1, STATUS = 8'd2, READ = 8'd3, WRITE = 8'd4, FILL = 8'd5, INJECT = 8'd6;
  localparam logic [7:0] RUN = 8'd7, EVENTS = 8'd8, RESTART = 8'd9, BAUD = 8'd10;
  localparam logic [7:0] OK = 8'd0, BUSY = 8'd1, RANGE = 8'd2, FORMAT = 8'd3, CRC = 8'd4, SEQ = 8'd5;

  typedef enum logic [4:0] {
    IDLE,
    LENGTH,
    NUMBER,
    OP,
    TURN,
    ARGUMENT,
    CHECK,
    NEXT,
    ITEM,
    ITEM_DO,
    FILL_DO,
    RUNNING,
    PULSED,
    RESTARTING,
    DONE,
    REFUSE,
    REPLY,
    REPLY_OP,
    REPLY_STATUS,
    PART,
    PUSH,
    READ_ASK,
    READ_WAIT,
    CLOSE
  } state_t;
  state_t state;

  logic [7:0] seq, expected, op, status;
  logic [5:0] place;
  logic [15:0] addr, last;
  logic [39:0] arg;
  logic [2:0] left;  // bytes still to be shifted into or out of arg
  logic settled, got;  // the byte of the frame at `index` is `value`, `here`
  logic [7:0] here;
  logic spent;  // all items have been
  logic checked;  // the second time over the payload
  logic [4:0] part;  // of the reply
  logic [7:0] fill;  // bytes of the reply so far
  logic damage;  // a damaged frame to be answered
  logic [15:0] damaged, unordered;
  logic [SLICE:0] slice;

  // --- memories ---

  logic [3:0] mem;
  logic [2:0] bytes;  // of an item
  logic [15:0] most;  // the last item
  assign mem = place[3:0];

  always_comb begin
    case (mem)
      4'd1, 4'd4, 4'd5: bytes = 3'd5;
      4'd0, 4'd7, 4'd9: bytes = 3'd3;
      4'd3: bytes = 3'd2;
      4'd10, 4'd11: bytes = 3'd1;
      default: bytes = 3'd4;
    endcase
    case (mem)
      4'd0: most = 16'(W - 1);
      4'd1, 4'd11: most = 16'(A - 1);
      4'd4: most = 16'(4 * TYPES - 1);
      4'd5: most = 16'(4 * GEOMS - 1);
      4'd6, 4'd14, 4'd15: most = 16'd15;
      4'd12: most = 16'(A / 2 - 1);
      4'd13: most = 16'(N / 32 - 1);
      default: most = 16'(N - 1);
    endcase
  end

  // --- may the request be done? ---

  logic [3:0] fixed;  // bytes of the payload that are always there
  logic known, more, fits;
  always_comb begin
    case (op)
      HELLO, RUN, BAUD, INJECT: fixed = 4'd4;
      READ, WRITE: fixed = 4'd5;
      FILL: fixed = 4'd10;
      EVENTS: fixed = 4'd3;
      default: fixed = 4'd0;
    endcase
  end
  assign known = op >= HELLO && op <= BAUD;
  assign more  = op == WRITE || op == INJECT;
  assign fits  = more ? length >= {4'd0, fixed} + 8'd2 : length == {4'd0, fixed} + 8'd2;

  logic in_turn, on_memory, while_idle;
  assign in_turn = (op == HELLO && fits) || seq == expected || seq == expected - 8'd1;
  assign on_memory = op == READ || op == WRITE || op == FILL;
  assign while_idle = on_memory || op == INJECT || op == RESTART;

  // Sizes are powers of two: a number is in range where it has no bit beyond.
  logic [31:0] ahead;  // from the step at hand to the one named
  logic soon, reached, place_ok, rate_ok, event_ok, argument_ok;
  assign ahead = arg[39:8] - step_count;
  assign soon = ahead[31:4] == 28'd0;
  assign reached = ahead == 32'd0 || ahead[31];
  assign place_ok = arg[7:6] == 2'd0 && (place[5:4] & ~2'(X * Y - 1)) == 2'd0 && (last & ~most) == 16'd0 && addr <= last;
  assign rate_ok = arg[39:27] == 13'd0 && arg[26:8] != 19'd0 && (!arg[26] || arg[25:8] == 18'd0);
  assign event_ok = arg[39:37] == 3'd0 && (arg[36:35] & ~2'(X * Y - 1)) == 2'd0 && (arg[34:24] & ~11'(A - 1)) == 11'd0;
  always_comb begin
    case (op)
      READ, WRITE, FILL: argument_ok = place_ok;
      INJECT: argument_ok = soon;
      EVENTS: argument_ok = log_within;
      BAUD: argument_ok = rate_ok;
      default: argument_ok = 1'b1;
    endcase
  end

  // --- what goes out ---

  // The identity behind its nonce, from byte 1 on.
  localparam logic [247:0] IDENTITY = {
    RATE,
    16'(LOG),
    16'(CREDIT),
    CLOCK,
    4'(Y),
    4'(X),
    8'($clog2(GEOMS)),
    8'($clog2(TYPES)),
    8'($clog2(W)),
    8'($clog2(A)),
    8'($clog2(N)),
    BUILD,
    8'd1,
    "C",
    "M",
    "N",
    8'd0
  };

  assign bus_valid = (state == ITEM_DO && op == WRITE) || state == FILL_DO || state == READ_ASK;
  assign bus_write = state != READ_ASK;
  assign bus_core = place[5:4];
  assign bus_mem = mem;
  assign bus_addr = addr;
  // Bytes come in at the top.
  logic [2:0] width;
  assign width = op == FILL ? 3'd5 : bytes;
  assign bus_wdata = width == 3'd5 ? arg : width == 3'd4 ? {8'd0, arg[39:8]} : width == 3'd3 ? {16'd0, arg[39:16]}
                   : width == 3'd2 ? {24'd0, arg[39:24]} : {32'd0, arg[39:32]};

  assign inj_valid = state == ITEM_DO && op == INJECT;
  assign inj_core = arg[36:35];
  assign inj_axon = arg[34:24];
  assign inj_slot = last[3:0];
  assign log_index = addr;
  assign wanted = arg[27:8];
  assign put = state == REPLY || state == REPLY_OP || state == REPLY_STATUS || state == PUSH;
  assign put_data = state == REPLY ? seq : state == REPLY_OP ? op : state == REPLY_STATUS ? status : arg[7:0];
  assign close = state == CLOSE;
  assign at_work = state != IDLE || frame || damage;

  logic sent, ends, byte_in;
  assign sent = put && put_ready;
  assign ends = index == length + 8'd1;
  assign byte_in = got && (state == LENGTH || state == NUMBER || state == OP
                           || ((state == ARGUMENT || state == ITEM) && left != 3'd0));

  always_ff @(posedge clk) begin
    drop      <= 1'b0;
    step      <= 1'b0;
    restart   <= 1'b0;
    change    <= 1'b0;
    log_clear <= rst;
    log_ack   <= 1'b0;
    here      <= value;
    settled   <= !byte_in;
    got       <= settled && !byte_in;
    slice     <= slice + 1'b1;
    if (bad) damage <= 1'b1;
    if (!busy) log_discard <= 1'b0;
    if (byte_in) index <= index + 8'd1;
    if (byte_in || (state == PUSH && put_ready)) begin
      arg  <= {here, arg[39:8]};
      left <= left - 3'd1;
    end
    if (sent) fill <= fill + 8'd1;

    case (state)
      IDLE: begin
        index   <= 8'd0;
        settled <= 1'b0;
        got     <= 1'b0;
        checked <= 1'b0;
        part    <= 5'd0;
        fill    <= 8'd0;
        if (room && frame) state <= LENGTH;
        else if (room && damage) begin
          damage  <= 1'b0;
          damaged <= damaged + 16'd1;
          seq     <= expected;
          op      <= 8'd0;
          status  <= CRC;
          state   <= REPLY;
        end
      end
      LENGTH: begin
        length <= here;
        if (got) state <= NUMBER;
      end
      NUMBER: begin
        seq <= here;
        if (got) state <= OP;
      end
      OP: begin
        op <= here;
        if (got) state <= TURN;
      end
      TURN: begin
        status <= in_turn ? FORMAT : SEQ;
        state  <= in_turn && known && fits ? ARGUMENT : REFUSE;
        left   <= on_memory ? 3'd5 : fixed[2:0];
        if (!in_turn) begin
          seq       <= expected;
          unordered <= unordered + 16'd1;
        end
      end
      ARGUMENT: begin
        place <= on_memory ? arg[5:0] : arg[37:32];
        addr  <= on_memory ? arg[23:8] : arg[31:16];
        last  <= on_memory ? arg[39:24] : {12'd0, arg[11:8]};
        spent <= 1'b0;
        if (left == 3'd0) state <= CHECK;
      end
      CHECK: begin
        left   <= 3'd5;  // FILL's item
        slice  <= '0;
        status <= busy && while_idle ? BUSY : RANGE;
        if ((busy && while_idle) || !argument_ok) state <= REFUSE;
        else
          case (op)
            WRITE, INJECT: state <= NEXT;
            FILL: state <= ITEM;
            RUN: state <= RUNNING;
            RESTART: begin
              restart   <= 1'b1;
              log_clear <= 1'b1;
              state     <= PULSED;
            end
            default: begin
              log_clear <= op == HELLO;
              log_ack   <= op == EVENTS;
              if (op == HELLO) log_discard <= busy;
              state <= DONE;
            end
          endcase
      end

      // Items of WRITE and FILL, events of INJECT.
      NEXT: begin
        left   <= op == INJECT ? 3'd2 : bytes;
        status <= FORMAT;
        if (op == WRITE && ends != spent) state <= REFUSE;
        else if (!ends) state <= ITEM;
        else if (checked) state <= DONE;
        else begin
          checked <= 1'b1;
          index   <= 8'd3;
          settled <= 1'b0;
          got     <= 1'b0;
          left    <= on_memory ? 3'd5 : 3'd4;
          state   <= ARGUMENT;
        end
      end
      ITEM: begin
        status <= left == 3'd0 ? RANGE : FORMAT;
        if (left != 3'd0) begin
          if (ends) state <= REFUSE;  // in the middle of an item
        end else if (op == INJECT && !event_ok) state <= REFUSE;
        else if (op == FILL) state <= FILL_DO;
        else if (checked) state <= ITEM_DO;
        else begin
          spent <= op == WRITE && addr == last;
          addr  <= addr + 16'd1;
          state <= NEXT;
        end
      end
      ITEM_DO:
      if (op == INJECT ? inj_ready : bus_ready) begin
        spent <= op == WRITE && addr == last;
        addr  <= addr + 16'd1;
        state <= NEXT;
      end
      FILL_DO:
      if (bus_ready) begin
        addr <= addr + 16'd1;
        if (addr == last) state <= DONE;
      end

      RUNNING:
      if (slice[SLICE] || (busy ? log_full : reached || log_nearly)) state <= DONE;
      else if (!busy) begin
        step  <= 1'b1;
        state <= PULSED;
      end
      PULSED: state <= op == RUN ? RUNNING : RESTARTING;  // busy is seen a clock after the pulse
      RESTARTING: if (!busy) state <= DONE;

      DONE: begin
        status   <= OK;
        expected <= seq + 8'd1;
        drop     <= 1'b1;
        state    <= REPLY;
      end
      REFUSE: begin
        drop  <= 1'b1;
        state <= REPLY;
      end

      REPLY: if (put_ready) state <= REPLY_OP;
      REPLY_OP: if (put_ready) state <= REPLY_STATUS;
      REPLY_STATUS: if (put_ready) state <= status == OK ? PART : CLOSE;
      PART: begin
        part  <= part + 5'd1;
        state <= PUSH;
        case (op)
          HELLO:
          if (part == 5'd0) begin
            arg  <= {8'd0, arg[39:8]};  // the nonce, down from the top
            left <= 3'd4;
          end else begin
            arg[7:0] <= IDENTITY[{part, 3'b000}+:8];
            left     <= 3'd1;
            if (part == 5'd31) state <= CLOSE;
          end
          STATUS, RUN, EVENTS, RESTART:
          case (part)
            5'd0: begin
              arg  <= {step_count, 5'd0, log_nearly, busy && log_full, busy};
              left <= 3'd5;
            end
            5'd1: begin
              arg[31:0] <= {log_acked, log_written};
              last      <= log_written;
              left      <= op == STATUS ? 3'd4 : 3'd2;
            end
            default: begin
              left <= 3'd4;
              if (op == EVENTS) begin
                part      <= part;
                addr      <= addr + 16'd1;
                place     <= place - 6'd1;  // records that are wanted
                arg[31:0] <= log_value;
                if (addr == last || place == 6'd0 || fill > FULL) state <= CLOSE;
              end else begin
                arg[31:0] <= {unordered, damaged};
                if (op != STATUS || part == 5'd3) state <= CLOSE;
              end
            end
          endcase
          READ: state <= spent || fill > FULL ? CLOSE : READ_ASK;
          default: state <= CLOSE;
        endcase
      end
      PUSH: if (put_ready && left == 3'd1) state <= PART;
      READ_ASK: if (bus_ready) state <= READ_WAIT;
      READ_WAIT: begin
        arg   <= bus_rdata;
        left  <= bytes;
        if (bus_rvalid) begin
          spent <= addr == last;
          addr  <= addr + 16'd1;
          state <= PUSH;
        end
      end
      default: begin  // CLOSE
        change <= op == BAUD && status == OK;  // the UART is not quiet again before the reply is out
        state  <= IDLE;
      end
    endcase

    if (rst) begin
      state       <= IDLE;
      expected    <= 8'd0;
      damage      <= 1'b0;
      damaged     <= 16'd0;
      unordered   <= 16'd0;
      log_discard <= 1'b0;
    end
  end
endmodule
